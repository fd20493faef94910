//! Where a text can be cut so that its pieces have the tokens of the whole.
//!
//! Cutting serves two ends: most pieces are words that come again and again, so their ids are
//! remembered; and a document of any size is encoded in bounded memory. A tokenizer for which no
//! rule is proven is given every text whole.

mod marks;
mod words;

use serde_json::Value;

use marks::Marks;
#[cfg(test)]
pub(crate) use words::PATTERNS;
pub(crate) use words::{TRAINED_PATTERN, piece_at_space};

/// The longest piece, in bytes. The `tokenizers` crate needs about a hundred bytes of memory for
/// each byte of a piece, so a text without any place to cut (a line of digits without end, say) is
/// refused beyond this.
pub(crate) const MAX_PIECE_BYTES: usize = 1 << 24;

/// Where a tokenizer allows to cut.
#[derive(Debug)]
pub(crate) enum Cuts {
    /// Nowhere that is known.
    Unknown,
    /// Where its expression cannot join a word.
    Words,
    /// Where its vocabulary has no token across.
    Marks(Marks),
}

impl Cuts {
    /// What the tokenizer that a `tokenizer.json` defines allows.
    pub(crate) fn of(definition: &Value) -> Self {
        if !is_plain_bpe(&definition["model"]) {
            return Self::Unknown;
        }
        if words::splits_at_words(definition) {
            return Self::Words;
        }
        Marks::of(definition).map_or(Self::Unknown, Self::Marks)
    }

    /// Whether the piece at the start of a text can have other tokens than inside.
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

    /// What to encode in place of a piece that is not known to start a text.
    pub(crate) fn inner<'a>(&self, piece: &'a str) -> &'a str {
        match self {
            Self::Unknown | Self::Words => piece,
            Self::Marks(marks) => marks.inner(piece),
        }
    }
}

/// BPE without dropout (which is random) and without marks at the borders of words.
fn is_plain_bpe(model: &Value) -> bool {
    let unset =
        |key: &str| matches!(&model[key], Value::Null) || model[key] == "" || model[key] == 0.0;
    model["type"] == "BPE"
        && ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].into_iter().all(unset)
}

#[cfg(test)]
mod tests;
