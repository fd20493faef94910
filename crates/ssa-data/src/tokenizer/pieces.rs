//! Where a text can be cut so that its pieces have the tokens of the whole.
//!
//! A byte-level BPE tokenizer first splits the text into words by a regular expression, and then
//! encodes each word on its own. If no word can hold the last byte of one piece and the first byte
//! of the next, the pieces split into the same words as the whole. In the expressions of
//! [`PATTERNS`] this is so
//!
//! * before a space that follows anything but white space, and
//! * before a line feed that follows an ASCII letter,
//!
//! because in each alternative white space comes first or not at all, but for line ends after
//! punctuation (`[\r\n]*`). They look ahead only from white space (`\s+(?!\S)`), and a piece never
//! ends there. They do not look behind. So the word that starts at the cut starts there in the
//! whole text too.
//!
//! Tokenizers that write spaces as a mark inside of words are cut by another rule: see [`Marks`].
//!
//! Cutting serves two ends: most pieces are words that come again and again, so their ids are
//! remembered; and a document of any size is encoded in bounded memory.

use std::borrow::Cow;

use serde_json::Value;

use super::marks::Marks;

/// Where a tokenizer allows to cut.
#[derive(Debug)]
pub(super) enum Cuts {
    /// Nowhere that is known.
    Unknown,
    /// Where its expression cannot join a word.
    Words,
    /// Where its vocabulary has no token across.
    Marks(Marks),
}

impl Cuts {
    /// What the tokenizer that a `tokenizer.json` defines allows.
    pub(super) fn of(definition: &Value) -> Self {
        if cuts_at_spaces(definition) {
            return Self::Words;
        }
        Marks::of(definition).map_or(Self::Unknown, Self::Marks)
    }

    /// The length of the first piece of a text.
    pub(super) fn piece(&self, text: &str) -> usize {
        match self {
            Self::Unknown => piece_of_any(text),
            Self::Words => piece_at_space(text),
            Self::Marks(marks) => marks.piece(text),
        }
    }

    /// What to encode in place of a piece that is not known to start a text.
    pub(super) fn inner<'a>(&self, piece: &'a str) -> &'a str {
        match self {
            Self::Unknown | Self::Words => piece,
            Self::Marks(marks) => marks.inner(piece),
        }
    }
}

/// The longest piece, in bytes. Text without a place to cut (a line of digits without end, say) is
/// cut here all the same, which can cost a token more than necessary; the `tokenizers` crate needs
/// about a hundred bytes of memory for each byte of a piece.
pub(super) const MAX_PIECE_BYTES: usize = 1 << 20;

/// The expressions for which cutting is proven above: those of GPT-2, Llama 3, Qwen 2, GPT-4o and
/// DeepSeek 3.
pub(super) const PATTERNS: [&str; 8] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}",
    "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

/// The pattern that tokenizers trained here split by: that of Llama 3.
pub(super) const TRAINED_PATTERN: &str = PATTERNS[2];

/// Whether the tokenizer that a `tokenizer.json` defines allows to cut at words.
fn cuts_at_spaces(definition: &Value) -> bool {
    is_plain_bpe(&definition["model"])
        && is_local(&definition["normalizer"])
        && splits_at_spaces(&definition["pre_tokenizer"])
        && definition["added_tokens"]
            .as_array()
            .is_none_or(|tokens| tokens.iter().all(is_plain_token))
}

/// No dropout (which is random) and no marks at the borders of words.
pub(super) fn is_plain_bpe(model: &Value) -> bool {
    let unset =
        |key: &str| matches!(&model[key], Value::Null) || model[key] == "" || model[key] == 0.0;
    model["type"] == "BPE"
        && ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].into_iter().all(unset)
}

/// Normal forms act on letters and the marks that follow them, never across a space.
fn is_local(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|steps| steps.iter().all(is_local))
        }
        Some("NFC" | "NFD" | "NFKC" | "NFKD") => true,
        _ => normalizer.is_null(),
    }
}

fn splits_at_spaces(pre_tokenizer: &Value) -> bool {
    match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().is_some_and(|steps| {
            steps.iter().all(is_known_step) && steps.iter().any(splits_at_every_space)
        }),
        _ => is_known_step(pre_tokenizer) && splits_at_every_space(pre_tokenizer),
    }
}

/// A step that never splits differently because of what lies across a cut.
fn is_known_step(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("ByteLevel") => step["add_prefix_space"] == false,
        Some("Digits") => true,
        // Matches are words, and so is, or is not, what lies between two.
        Some("Split") => {
            let how = (step["behavior"].as_str(), step["invert"].as_bool());
            let words =
                [(Some("Isolated"), Some(false)), (Some("Removed"), Some(true))].contains(&how);
            words && known_pattern(step).is_some()
        }
        _ => false,
    }
}

/// A step that splits at every place where this module cuts, whatever the other steps do.
fn splits_at_every_space(step: &Value) -> bool {
    match step["type"].as_str() {
        // The expression of GPT-2 is built into this step.
        Some("ByteLevel") => step["use_regex"] != false,
        Some("Split") => known_pattern(step).is_some_and(|pattern| pattern.contains(r"\s+")),
        _ => false,
    }
}

fn known_pattern(step: &Value) -> Option<&'static str> {
    // Line ends are written as escapes or as themselves.
    let pattern = step["pattern"]["Regex"].as_str()?;
    let pattern: Cow<'_, str> = if pattern.contains(['\r', '\n']) {
        pattern.replace('\r', r"\r").replace('\n', r"\n").into()
    } else {
        pattern.into()
    };
    PATTERNS.into_iter().find(|known| *known == pattern)
}

/// A token that is found in the text wherever it stands, and has no place to cut inside.
fn is_plain_token(token: &Value) -> bool {
    let set = |key: &str| token[key] == true;
    !set("lstrip")
        && !set("rstrip")
        && !set("single_word")
        && token["content"].as_str().is_some_and(|content| !content.contains(char::is_whitespace))
}

/// The length of the first piece of a text that may be cut at words.
pub(super) fn piece_at_space(text: &str) -> usize {
    let bytes = text.as_bytes();
    let limit = bytes.len().min(MAX_PIECE_BYTES);
    for at in 1..limit {
        let cut = match bytes[at] {
            b' ' => ends_in_no_space(text, at),
            b'\n' => bytes[at - 1].is_ascii_alphabetic(),
            _ => false,
        };
        if cut {
            return at;
        }
    }
    text.floor_char_boundary(limit)
}

/// The length of the first piece of a text for a tokenizer that is not known to allow any cut: the
/// whole, or if that is too long, up to the end of a line, or a space.
pub(super) fn piece_of_any(text: &str) -> usize {
    if text.len() <= MAX_PIECE_BYTES {
        return text.len();
    }
    let limit = text.floor_char_boundary(MAX_PIECE_BYTES);
    let piece = &text.as_bytes()[..limit];
    let last = |wanted: u8| piece.iter().rposition(|&byte| byte == wanted);
    match (last(b'\n'), last(b' ')) {
        (Some(end_of_line), _) => end_of_line + 1,
        (None, Some(space)) if space > 0 => space,
        _ => limit,
    }
}

fn ends_in_no_space(text: &str, end: usize) -> bool {
    match text.as_bytes()[end - 1] {
        last if last.is_ascii() => !char::from(last).is_whitespace(),
        _ => text[..end].chars().next_back().is_some_and(|last| !last.is_whitespace()),
    }
}
