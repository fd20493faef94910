//! Cuts of a text that do not change its tokens.
//!
//! Cutting has two purposes: most pieces are frequent words, whose ids are cached; and a document
//! of any size is encoded in bounded memory. A tokenizer without a proven rule gets every text as a
//! whole.

mod marks;
mod words;

use serde_json::Value;

use marks::Marks;
#[cfg(test)]
pub(crate) use words::PATTERNS;
pub(crate) use words::{TRAINED_PATTERN, piece_at_space};

/// Maximum piece length in bytes. The `tokenizers` crate needs about a hundred bytes of memory per
/// byte of a piece, so a longer text without any cut (such as an endless line of digits) is
/// refused.
pub(crate) const MAX_PIECE_BYTES: usize = 1 << 24;

/// The cut rule of a tokenizer.
#[derive(Debug)]
pub(crate) enum Cuts {
    /// No known cuts.
    Unknown,
    /// Between words that its regular expression cannot join.
    Words,
    /// At spaces that no token of the vocabulary can cross.
    Marks(Marks),
}

impl Cuts {
    /// The cut rule of the tokenizer in a `tokenizer.json`.
    pub(crate) fn of(definition: &Value) -> Self {
        if !is_plain_bpe(&definition["model"]) {
            return Self::Unknown;
        }
        if words::splits_at_words(definition) {
            return Self::Words;
        }
        Marks::of(definition).map_or(Self::Unknown, Self::Marks)
    }

    /// Whether a piece can have different tokens at the start of a text than inside.
    pub(crate) fn start_differs(&self) -> bool {
        match self {
            Self::Unknown | Self::Words => false,
            Self::Marks(marks) => marks.start_differs(),
        }
    }

    /// The length of the first piece of a text.
    pub(crate) fn piece(&self, text: &str) -> usize {
        match self {
            Self::Unknown => text.len(),
            Self::Words => piece_at_space(text),
            Self::Marks(marks) => marks.piece(text),
        }
    }

    /// The text to encode for a piece that is not at the start of a text.
    pub(crate) fn inner<'a>(&self, piece: &'a str) -> &'a str {
        match self {
            Self::Unknown | Self::Words => piece,
            Self::Marks(marks) => marks.inner(piece),
        }
    }
}

/// BPE without dropout (which is random) and without word boundary marks.
fn is_plain_bpe(model: &Value) -> bool {
    let unset =
        |key: &str| matches!(&model[key], Value::Null) || model[key] == "" || model[key] == 0.0;
    model["type"] == "BPE"
        && ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].into_iter().all(unset)
}

#[cfg(test)]
mod tests;
