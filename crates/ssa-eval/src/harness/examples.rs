//! Few-shot examples, drawn as the harness draws them.

use ssa_text::Json;

use super::python_random::PythonRandom;
use super::task_file::Sampler;

/// Draws examples for one document after another; later draws depend on earlier ones.
#[derive(Debug)]
pub(super) struct ExampleSampler<'a> {
    sampler: Sampler,
    pool: &'a [Json],
    random: PythonRandom,
}

impl<'a> ExampleSampler<'a> {
    pub(super) fn new(sampler: Sampler, pool: &'a [Json], seed: u64) -> Self {
        Self { sampler, pool, random: PythonRandom::new(seed) }
    }

    /// The indices of `count` examples, none of them `excluded`.
    ///
    /// # Errors
    /// The pool has too few rows.
    pub(super) fn draw(
        &mut self,
        count: usize,
        excluded: Option<&Json>,
    ) -> Result<Vec<usize>, String> {
        let pool = self.pool;
        let allowed = |index: &usize| excluded != Some(&pool[*index]);
        let drawn = match (self.sampler, excluded) {
            (Sampler::FirstN, _) => (0..pool.len()).filter(allowed).take(count).collect(),
            (Sampler::Default, None) => self.random.sample(pool.len(), count.min(pool.len())),
            (Sampler::Default, Some(_)) => {
                // One more, in case the document itself is drawn; if it was drawn more than once,
                // a draw of all others decides.
                if pool.len() <= count {
                    return Err(self.too_few(count + 1));
                }
                let mut drawn = self.random.sample(pool.len(), count + 1);
                drawn.retain(allowed);
                drawn.truncate(count);
                if drawn.len() < count {
                    let others: Vec<usize> = (0..pool.len()).filter(allowed).collect();
                    if others.len() < count {
                        return Err(self.too_few(count));
                    }
                    let places = self.random.sample(others.len(), count);
                    drawn = places.into_iter().map(|place| others[place]).collect();
                }
                drawn
            }
        };
        if drawn.len() < count { Err(self.too_few(count)) } else { Ok(drawn) }
    }

    fn too_few(&self, needed: usize) -> String {
        format!("{needed} rows are needed to draw examples from, and there are {}", self.pool.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(rows: i128) -> Vec<Json> {
        (0..rows).map(Json::Int).collect()
    }

    #[test]
    fn draws_continue_and_leave_out_the_document() {
        let rows = pool(100);
        let mut sampler = ExampleSampler::new(Sampler::Default, &rows, 1234);
        let first = sampler.draw(5, None).unwrap();
        let second = sampler.draw(5, None).unwrap();
        assert_ne!(first, second);
        let mut again = ExampleSampler::new(Sampler::Default, &rows, 1234);
        assert_eq!(again.draw(5, None).unwrap(), first);
        let small = pool(3);
        let mut sampler = ExampleSampler::new(Sampler::Default, &small, 1234);
        for document in &small {
            let drawn = sampler.draw(2, Some(document)).unwrap();
            assert!(drawn.len() == 2 && drawn.iter().all(|&index| small[index] != *document));
        }
        // Copies of the document are all left out.
        let copies = [pool(1), pool(1), pool(1), pool(3)].concat();
        let mut sampler = ExampleSampler::new(Sampler::Default, &copies, 0);
        for _ in 0..20 {
            let drawn = sampler.draw(2, Some(&Json::Int(0))).unwrap();
            assert!(drawn.len() == 2 && drawn.iter().all(|&index| copies[index] != Json::Int(0)));
        }
    }

    #[test]
    fn the_first_rows_are_taken_in_order() {
        let rows = pool(4);
        let mut sampler = ExampleSampler::new(Sampler::FirstN, &rows, 0);
        assert_eq!(sampler.draw(2, None).unwrap(), [0, 1]);
        assert_eq!(sampler.draw(2, Some(&Json::Int(0))).unwrap(), [1, 2]);
    }

    #[test]
    fn too_few_rows_are_an_error() {
        let rows = pool(2);
        for sampler in [Sampler::Default, Sampler::FirstN] {
            let mut sampler = ExampleSampler::new(sampler, &rows, 0);
            let cause = sampler.draw(3, None).unwrap_err();
            assert_eq!(cause, "3 rows are needed to draw examples from, and there are 2");
            let cause = sampler.draw(2, Some(&rows[0])).unwrap_err();
            assert!(cause.contains("rows are needed to draw examples from"), "{cause}");
        }
    }
}
