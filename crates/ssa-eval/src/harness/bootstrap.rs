//! Standard errors by resampling.

use rayon::prelude::*;

use super::python_random::PythonRandom;

/// Resamples, in chunks that each have their own generator, as in the harness.
const CHUNKS: u64 = 100;
const RESAMPLES: usize = 1000;

/// The standard error of a function of the mean: the sample standard deviation of 100,000
/// resamples. Chunk `i` draws with Python's `random.Random(i).choices`.
pub(super) fn bootstrap_stderr(values: &[f64], of_mean: impl Fn(f64) -> f64 + Sync) -> f64 {
    let count = values.len() as f64;
    let chunk = |seed| {
        let mut random = PythonRandom::new(seed);
        let resample = |_| {
            let drawn = (0..values.len()).map(|_| values[(random.float() * count) as usize]);
            of_mean(drawn.sum::<f64>() / count)
        };
        (0..RESAMPLES).map(resample).collect::<Vec<f64>>()
    };
    let results: Vec<f64> = (0..CHUNKS).into_par_iter().flat_map_iter(chunk).collect();
    let mean = results.iter().sum::<f64>() / results.len() as f64;
    let squares = results.iter().map(|result| (result - mean).powi(2)).sum::<f64>();
    (squares / (results.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_the_harness() {
        // lm_eval.api.metrics.bootstrap_stderr(perplexity, [-1.0, -2.5, -0.5, -4.0], 100000).
        let found = bootstrap_stderr(&[-1.0, -2.5, -0.5, -4.0], |mean| (-mean).exp());
        assert!((found - 7.377_472_885_864_353_5).abs() < 1e-9, "{found}");
    }
}
