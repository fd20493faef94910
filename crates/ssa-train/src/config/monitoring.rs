//! The `[monitoring]` section.

use ssa_model::AttentionMode;

use super::schema::section;

section! {
    /// What is measured and written during training. Probes and validation always use the same
    /// held-out rows and do not affect training.
    pub struct MonitoringSection {
        /// Whether to write TensorBoard event files to `tensorboard/` in the run directory, in
        /// addition to `metrics.jsonl`.
        pub tensorboard: bool = true,
        /// Steps between two probes of attention: sparsity, entropy and distance of full and sparse
        /// outputs per layer, and the KL divergence of the predictions. The last step is always
        /// probed. 0 disables probes.
        pub probe_every: usize = 100,
        /// Held-out tokens per probe, rounded up to whole evaluation batches.
        pub probe_tokens: usize = 2048,
        /// Steps between two validations: the held-out loss with full attention (not for method
        /// `nsa`) and with sparse attention at the training budget. The last step is always
        /// validated. 0 disables validation.
        pub validate_every: usize = 100,
        /// Held-out tokens per validation, rounded up to whole evaluation batches.
        pub validation_tokens: usize = 16384,
        /// Attention mode whose validation loss selects the weights in `best/`: `full` or `sparse`.
        /// Absent: `full` for method `full`, `sparse` for the others.
        pub best_by: Option<AttentionMode> = None,
        /// Peak throughput of all devices together in TFLOP/s, at the dtype of the matrix products.
        /// If set, training logs its fraction of the peak as `mfu`. Absent: only `tflops` is
        /// logged.
        pub peak_tflops: Option<f64> = None,
    }
}
