//! Sums whose addends are computed in parallel and added in a fixed order.
//!
//! Attention backwards have many tasks that add to the same keys. Atomic adds or per-thread buffers
//! would make the rounding depend on timing; here every task adds into its own zeroed buffers,
//! and these are added to the output in the order of the tasks. The result depends on how the
//! caller cut the work, never on threads.

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::CHUNK;
use crate::Result;
use crate::host_memory::zeros;

/// One addend: the part of the outputs it may touch and what it is computed from.
pub(crate) struct Addend<T> {
    /// Elements of each output; the buffers given to the task cover exactly these.
    pub(crate) range: Range<usize>,
    /// Handed to the task.
    pub(crate) task: T,
}

/// Computes every addend with `compute(task, buffers)` in parallel, then adds them to `outs` in
/// order.
///
/// All `R` outputs have the same length, and `buffers` holds one zeroed buffer for each. Extra
/// memory: `R` times the summed lengths of the ranges, so a caller keeps the number of addends per
/// element bounded.
///
/// # Errors
/// [`KernelError::HostMemory`](crate::KernelError::HostMemory).
pub(crate) fn add_in_order<T: Send, const R: usize>(
    outs: [&mut [f32]; R],
    addends: Vec<Addend<T>>,
    compute: impl Fn(T, [&mut [f32]; R]) + Sync,
) -> Result<()> {
    // Addends are few and large: without the limit rayon would run several in a row on one thread.
    let partials = addends
        .into_par_iter()
        .with_max_len(1)
        .map(|Addend { range, task }| {
            let mut buffers = std::array::from_fn(|_| Vec::new());
            for buffer in &mut buffers {
                *buffer = zeros(range.len())?;
            }
            compute(task, buffers.each_mut().map(Vec::as_mut_slice));
            Ok((range, buffers))
        })
        .collect::<Result<Vec<(Range<usize>, [Vec<f32>; R])>>>()?;
    for (index, out) in outs.into_iter().enumerate() {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            let start = chunk * CHUNK;
            for (range, buffers) in &partials {
                let overlap = range.start.max(start)..range.end.min(start + out.len());
                if !overlap.is_empty() {
                    let partial =
                        &buffers[index][overlap.start - range.start..overlap.end - range.start];
                    let out = &mut out[overlap.start - start..overlap.end - start];
                    out.iter_mut().zip(partial).for_each(|(out, partial)| *out += partial);
                }
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addends_meet_their_ranges() {
        let len = CHUNK + 10;
        let mut a = vec![1.0; len];
        let mut b = vec![2.0; len];
        let addends = vec![
            Addend { range: 0..len, task: 1.0 },
            Addend { range: CHUNK - 1..CHUNK + 2, task: 10.0 },
            Addend { range: 5..5, task: f32::NAN },
        ];
        add_in_order([&mut a, &mut b], addends, |task, [a, b]| {
            a.iter_mut().for_each(|a| *a += task);
            b.iter_mut().for_each(|b| *b += 2.0 * task);
        })
        .unwrap();
        for index in 0..len {
            let inside = (CHUNK - 1..CHUNK + 2).contains(&index);
            assert_eq!(a[index], if inside { 12.0 } else { 2.0 });
            assert_eq!(b[index], if inside { 24.0 } else { 4.0 });
        }
    }

    #[test]
    fn the_order_of_addition_is_that_of_the_addends() {
        // 1e8 + 1 rounds to 1e8 in f32, so the order shows.
        let sum = |values: [f32; 3]| {
            let mut out = [0.0];
            let addends = values.map(|task| Addend { range: 0..1, task }).into();
            add_in_order([&mut out], addends, |task, [out]| out[0] += task).unwrap();
            out[0]
        };
        assert_eq!(sum([1.0, 1e8, -1e8]), 0.0);
        assert_eq!(sum([1e8, -1e8, 1.0]), 1.0);
    }
}
