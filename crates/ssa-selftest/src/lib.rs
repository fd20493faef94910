//! Checks of every operation, of whole models and of training steps on the device of the user.
//!
//! A GPU, its driver and its libraries differ from machine to machine, and tests that run where the
//! program is built say little about them. So the checks ship with the program: `ssa selftest`.
//!
//! Every result is compared with the `f64` reference of its op on the same inputs (rounded to
//! `bf16` where the device computes in it). What is allowed is twice the error of a plain
//! computation in `bf16`, one that rounds after every operation, plus the rounding of the result
//! itself: a kernel that keeps its sums in `f32` does much better, one that loses an element or a
//! term does much worse. Outputs are filled with NaN beforehand, gradients are checked from zero
//! and added to, and everything runs twice and must give the same bits.
//!
//! Whole training steps, and the cases of a golden directory, are judged in the same way, by a step
//! in `f64` and a plain step in `bf16`, both composed of the references of the ops. A block that is
//! almost as important as another may be selected in its place; so both take the blocks that the
//! device has selected, and how important those are is a separate check.

mod architecture;
mod context;
mod decoding;
pub mod golden;
mod model;
mod ops;
mod plain;
mod selection;
mod step;
mod trainer;

pub use context::{Context, Outcome};
pub use plain::{added_twice, bf16, round, twice};

use ssa_kernels::{Device, KernelError};

/// Result of the checks' own functions.
pub type Result<T, E = KernelError> = std::result::Result<T, E>;

/// The checks of one op.
#[derive(Clone, Copy)]
pub struct Suite {
    /// Name of the op.
    pub name: &'static str,
    run: fn(&mut Context<'_>) -> Result<()>,
}

/// All checks.
pub const SUITES: &[Suite] = &[
    Suite { name: "tensor", run: ops::tensor::run },
    Suite { name: "streams", run: ops::streams::run },
    Suite { name: "linear", run: ops::linear::run },
    Suite { name: "bias", run: ops::bias::run },
    Suite { name: "rms_norm", run: ops::rms_norm::run },
    Suite { name: "rope", run: ops::rope::run },
    Suite { name: "swiglu", run: ops::swiglu::run },
    Suite { name: "embedding", run: ops::embedding::run },
    Suite { name: "gate", run: ops::gate::run },
    Suite { name: "alignment", run: ops::alignment::run },
    Suite { name: "gated_pair", run: ops::gated_pair::run },
    Suite { name: "cross_entropy", run: ops::cross_entropy::run },
    Suite { name: "grad_norm", run: ops::grad_norm::run },
    Suite { name: "adamw", run: ops::adamw::run },
    Suite { name: "full attention", run: ops::attention::run_full },
    Suite { name: "window attention", run: ops::attention::run_window },
    Suite { name: "compression attention", run: ops::attention::run_compression },
    Suite { name: "mean_pool", run: ops::pooling::run },
    Suite { name: "select_blocks", run: ops::selection::run },
    Suite { name: "sparse_attention", run: ops::sparse::run },
    Suite { name: "attention_statistics", run: ops::statistics::run },
    Suite { name: "small_batch_linear", run: ops::linear_rows::run },
    Suite { name: "draw_tokens", run: ops::sampling::run },
    Suite { name: "kv_cache", run: ops::cached::run_cache },
    Suite { name: "cached_attention", run: ops::cached::run_attention },
    Suite { name: "decode_step", run: decoding::run },
    Suite { name: "model", run: model::run },
    Suite { name: "trainer", run: trainer::run },
];

/// Runs the suites whose name contains `filter` on a device. `observe` sees every outcome as it
/// comes.
///
/// # Errors
/// The device fails so that no further check can run. A wrong result is an [`Outcome`], not an
/// error.
pub fn run(
    device: &Device,
    filter: &str,
    observe: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>> {
    if let Device::Cuda(gpu) = device {
        gpu.poison_outputs(true);
    }
    let mut outcomes = Vec::new();
    for suite in SUITES.iter().filter(|suite| suite.name.contains(filter)) {
        let mut context = Context::new(device, suite.name, observe);
        let result = (suite.run)(&mut context);
        outcomes.extend(context.finish(result)?);
    }
    if let Device::Cuda(gpu) = device {
        gpu.poison_outputs(false);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU passes its own checks: the cases, references and tolerances make sense.
    #[test]
    fn the_cpu_passes() {
        let outcomes = run(&Device::Cpu, "", &mut |_| ()).unwrap();
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        for suite in SUITES {
            assert!(
                outcomes.iter().any(|outcome| outcome.op == suite.name),
                "{} has no checks",
                suite.name
            );
        }
    }
}
