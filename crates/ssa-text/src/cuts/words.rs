//! Cuts for byte-level BPE, which first splits a text into words.
//!
//! A regular expression splits the text, and each word is encoded separately. If no word can
//! contain both the last byte of one piece and the first byte of the next, the pieces split into
//! the same words as the whole text. For the expressions in [`PATTERNS`] this holds
//!
//! * before a space that follows anything but white space, and
//! * before a line feed that follows an ASCII letter,
//!
//! because in each alternative white space comes first or not at all, except for line ends after
//! punctuation (`[\r\n]*`). They look ahead only from white space (`\s+(?!\S)`), where no piece
//! ends, and never look back. So the word that starts at the cut starts there in the whole text
//! too.
//!
//! Added tokens are matched in the text before it is split. One that is only white space (as in
//! GPT-NeoX and OLMo) never contains the character before a cut, and one without white space never
//! the character after it, so none crosses a cut.

use std::borrow::Cow;

use serde_json::Value;

/// The expressions covered by this proof: those of GPT-2, Llama 3, Qwen 2, GPT-4o and DeepSeek 3.
pub(crate) const PATTERNS: [&str; 8] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    r"\p{N}{1,3}",
    "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
        r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// The pattern of tokenizers trained here: that of Llama 3.
pub(crate) const TRAINED_PATTERN: &str = PATTERNS[2];

/// Whether the tokenizer in a `tokenizer.json` allows cuts between words.
pub(super) fn splits_at_words(definition: &Value) -> bool {
    is_local(&definition["normalizer"])
        && splits_at_spaces(&definition["pre_tokenizer"])
        && definition["added_tokens"]
            .as_array()
            .is_none_or(|tokens| tokens.iter().all(is_plain_token))
}

/// Unicode normalization acts on letters and their combining marks, never across a space.
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

/// Whether a step never splits differently because of text across a cut.
fn is_known_step(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("ByteLevel") => step["add_prefix_space"] == false,
        Some("Digits") => true,
        // Matches are words; the text between two matches is a word or dropped.
        Some("Split") => {
            let how = (step["behavior"].as_str(), step["invert"].as_bool());
            let words =
                [(Some("Isolated"), Some(false)), (Some("Removed"), Some(true))].contains(&how);
            words && known_pattern(step).is_some()
        }
        _ => false,
    }
}

/// Whether a step splits at every cut of this module, independent of the other steps.
fn splits_at_every_space(step: &Value) -> bool {
    match step["type"].as_str() {
        // This step has the built-in expression of GPT-2.
        Some("ByteLevel") => step["use_regex"] != false,
        Some("Split") => known_pattern(step).is_some_and(|pattern| pattern.contains(r"\s+")),
        _ => false,
    }
}

fn known_pattern(step: &Value) -> Option<&'static str> {
    // Line ends may be escaped or literal.
    let pattern = step["pattern"]["Regex"].as_str()?;
    let pattern: Cow<'_, str> = if pattern.contains(['\r', '\n']) {
        pattern.replace('\r', r"\r").replace('\n', r"\n").into()
    } else {
        pattern.into()
    };
    PATTERNS.into_iter().find(|known| *known == pattern)
}

/// Whether a token is matched anywhere in the text but never across a cut: it has no white space,
/// or only white space.
fn is_plain_token(token: &Value) -> bool {
    let set = |key: &str| token[key] == true;
    !set("lstrip")
        && !set("rstrip")
        && !set("single_word")
        && token["content"].as_str().is_some_and(|content| {
            let ascii_space = |c: char| c.is_ascii() && c.is_whitespace();
            !content.contains(char::is_whitespace) || content.chars().all(ascii_space)
        })
}

/// The length of the first piece of a text that may be cut between words: the whole text if there
/// is no cut.
pub(crate) fn piece_at_space(text: &str) -> usize {
    let bytes = text.as_bytes();
    let cut = |&at: &usize| match bytes[at] {
        b' ' => ends_in_no_space(text, at),
        b'\n' => bytes[at - 1].is_ascii_alphabetic(),
        _ => false,
    };
    (1..bytes.len()).find(cut).unwrap_or(bytes.len())
}

fn ends_in_no_space(text: &str, end: usize) -> bool {
    match text.as_bytes()[end - 1] {
        last if last.is_ascii() => !char::from(last).is_whitespace(),
        _ => text[..end].chars().next_back().is_some_and(|last| !last.is_whitespace()),
    }
}
