//! How the attentions of a model run.

use ssa_kernels::ops::attention::AttentionMode;
use ssa_kernels::ops::attention::selection::SelectionOptions;

use crate::method::Method;

/// Which streams restart at the border of a document within a packed row.
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

/// How the attentions of a model run: what a configuration was trained with, or any variant of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOptions {
    /// The set of attentions.
    pub method: Method,
    /// Which of them runs.
    pub mode: AttentionMode,
    /// Budget and rule of block selection.
    pub selection: SelectionOptions,
    /// Tokens of the sliding window of methods that have one.
    pub window_size: usize,
    /// Which streams respect document borders.
    pub document_masking: DocumentMasking,
}
