//! The gradients of the groups of micro-batches, added in a binary tree.

use ssa_kernels::KernelError;
use ssa_model::Parameters;

/// The sum of the gradients of a power of two of groups:
///
/// ```text
/// 4 groups:  (g0 + g1) + (g2 + g3)
/// ```
///
/// A group is accumulated from zero. So the sum of a half, a quarter, ... of the groups does not
/// depend on the others, and ranks that own a part of the groups each give the same sum.
///
/// It takes one buffer for each level of the tree: one for one group, three for four.
#[derive(Debug)]
pub(crate) struct GroupSum {
    buffers: Vec<Parameters>,
    /// Groups in each buffer in use, from the first buffer on.
    counts: Vec<usize>,
}

impl GroupSum {
    /// The sum of `groups` groups, a power of two; `zeros` makes a gradient of zeros.
    ///
    /// # Errors
    /// That of `zeros`.
    pub(crate) fn new<E>(
        groups: usize,
        zeros: impl Fn() -> Result<Parameters, E>,
    ) -> Result<Self, E> {
        let levels = groups.max(1).ilog2();
        let buffers = (0..=levels).map(|_| zeros()).collect::<Result<_, _>>()?;
        Ok(Self { buffers, counts: Vec::new() })
    }

    /// Forgets all groups.
    pub(crate) fn clear(&mut self) {
        self.counts.clear();
    }

    /// The gradient of the next group, zero; [`add`](Self::add) must follow.
    pub(crate) fn next(&mut self) -> &mut Parameters {
        // A number of groups that is no power of two would need more levels.
        let last = self.buffers.len() - 1;
        let buffer = &mut self.buffers[self.counts.len().min(last)];
        buffer.fill_zero();
        buffer
    }

    /// Adds the gradient of the group to the sum.
    ///
    /// # Errors
    /// [`KernelError`] if the device fails.
    pub(crate) fn add(&mut self) -> Result<(), KernelError> {
        self.counts.push(1);
        while let [.., left, right] = self.counts[..]
            && left == right
        {
            let (sums, rights) = self.buffers.split_at_mut(self.counts.len() - 1);
            if let (Some(sum), Some(right)) = (sums.last_mut(), rights.first()) {
                add_assign(sum, right)?;
            }
            self.counts.pop();
            if let Some(count) = self.counts.last_mut() {
                *count *= 2;
            }
        }
        Ok(())
    }

    /// As [`sum`](Self::sum), to give its memory back.
    pub(crate) fn sum_mut(&mut self) -> &mut Parameters {
        &mut self.buffers[0]
    }

    /// The sum of all groups.
    pub(crate) fn sum(&self) -> &Parameters {
        &self.buffers[0]
    }
}

fn add_assign(sum: &mut Parameters, other: &Parameters) -> Result<(), KernelError> {
    let tensors = sum.named_mut().into_iter().zip(other.named());
    for ((_, sum), (_, other)) in tensors.filter(|((_, sum), _)| !sum.is_empty()) {
        sum.add_assign(other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::tests::plan;

    #[test]
    fn groups_are_added_in_a_binary_tree() {
        let plan = plan(&[]);
        // Large numbers hide small ones, so the order shows: from left to right, the sum of these
        // is 1, and in the tree it is 0.
        let groups = [0.0, 1e30, -1e30, 1.0, 0.0, 0.0, 0.0, 0.0];
        let zeros = || Parameters::zeros(plan.model());
        let mut sum = GroupSum::new(groups.len(), zeros).unwrap();
        for _ in 0..2 {
            sum.clear();
            for value in groups {
                for (_, tensor) in sum.next().named_mut() {
                    let values = tensor.as_mut_slice().unwrap();
                    values.iter_mut().for_each(|element| *element += value);
                }
                sum.add().unwrap();
            }
            let all = sum.sum().named().into_iter();
            let mut elements = all.flat_map(|(_, tensor)| tensor.to_vec().unwrap());
            assert!(elements.all(|element| element == 0.0));
        }
        assert_eq!(sum.buffers.len(), 4);
    }
}
