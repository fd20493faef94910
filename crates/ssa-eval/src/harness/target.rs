//! What answers are compared with.

/// What answers are compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// The right choices, and the lengths of all.
    Choices { right: Vec<usize>, lengths: Vec<ChoiceLength> },
    /// Texts of which one is to be generated.
    Texts(Vec<String>),
    /// The words and bytes of a text.
    Counted { words: usize, bytes: usize },
    /// The continuation itself.
    Continuation,
}

/// The length of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChoiceLength {
    pub(super) characters: usize,
    pub(super) bytes: usize,
}
