//! Full or sparse attention.

/// Which of its attentions a model runs: the stream of a training step, the mode of inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionMode {
    /// Over all earlier tokens.
    Full,
    /// Over the tokens of the selected blocks.
    Sparse,
}

ssa_names::names!(AttentionMode: "attention mode" { Full = "full", Sparse = "sparse" });
