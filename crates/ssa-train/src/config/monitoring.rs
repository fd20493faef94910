//! The section on watching a run.

use ssa_model::AttentionMode;

use super::schema::section;

section! {
    /// What is measured and written during training. Probes and validation use held-out
    /// text, always the same rows, and change nothing of the training.
    pub struct MonitoringSection {
        /// Write TensorBoard event files to `tensorboard/` in the run directory, in addition to
        /// `metrics.jsonl`.
        pub tensorboard: bool = true,
        /// Steps between two probes of attention: sparsity, entropy and distance of full and sparse
        /// outputs layer by layer, and the divergence of the predictions. The last step is always
        /// probed. 0 for no probes.
        pub probe_every: usize = 100,
        /// Held-out tokens of a probe, rounded up to whole evaluation batches.
        pub probe_tokens: usize = 2048,
        /// Steps between two validations: the held-out loss under full attention (not for method
        /// `nsa`) and under sparse attention at the trained budget. The last step is always
        /// validated. 0 for no validation.
        pub validate_every: usize = 100,
        /// Held-out tokens of a validation, rounded up to whole evaluation batches.
        pub validation_tokens: usize = 16384,
        /// Attention whose validation loss decides which weights are kept in `best/`: `full` or
        /// `sparse`. Absent: `full` for method `full`, `sparse` for the others.
        pub best_by: Option<AttentionMode> = None,
        /// Most that the device can do, in 10^12 floating-point operations a second (of all devices
        /// together, in the number format of the products): with it the share that training makes
        /// of it is logged as `mfu`. Absent: only `tflops` is logged.
        pub peak_tflops: Option<f64> = None,
    }
}
