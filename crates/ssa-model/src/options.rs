//! How the attentions of a model run.

use ssa_kernels::ops::attention::AttentionMode;
use ssa_kernels::ops::attention::selection::SelectionOptions;

use crate::method::Method;

/// Which streams mask attention across document borders within a packed row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DocumentMasking {
    /// Both: no token sees another document.
    #[default]
    Both,
    /// Full attention only, as in the released training code: the sparse stream sees whole rows.
    FullOnly,
}

ssa_names::names!(DocumentMasking: "document masking" {
    Both = "both",
    FullOnly = "full_only",
});

/// How the attentions of a model run: as in training, or a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOptions {
    /// The attention method.
    pub method: Method,
    /// The mode to run.
    pub mode: AttentionMode,
    /// Budget and rule of block selection.
    pub selection: SelectionOptions,
    /// Tokens of the sliding window of methods that have one.
    pub window_size: usize,
    /// Which streams respect document borders.
    pub document_masking: DocumentMasking,
}
