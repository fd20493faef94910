//! Cuts for tokenizers that encode a space as a mark (`\u{2581}`), like those of Llama 2, Mistral
//! and Gemma.
//!
//! They do not split a text into words: merges may join any characters, as long as the result is a
//! token. So if no token contains a character `c` before a mark, nothing is joined across `c` and a
//! space, and the two sides can be encoded separately. In published vocabularies `c` can be any
//! character except a mark and one or two others.
//!
//! Cuts avoid everything else that depends on both sides:
//!
//! * tokens matched in the raw text first (`</s>`): they contain no space, and no cut is made where
//!   one could end or begin;
//! * a mark prepended to every text ([`Prefix::Always`]): a later piece is encoded without its
//!   space, which that mark replaces.

use std::collections::HashSet;

use serde_json::Value;

/// The mark for a space.
const MARK: char = '\u{2581}';
/// The mark in the tokenizer's file.
const MARK_TEXT: &str = "\u{2581}";

/// What is prepended to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// A mark, always.
    Always,
    /// Nothing, or a mark if there is no space.
    UnlessSpace,
}

/// The cut rule of one tokenizer.
#[derive(Debug)]
pub(crate) struct Marks {
    prefix: Prefix,
    /// Characters that a cut must not follow.
    before: HashSet<char>,
    /// Characters that must not follow the space at a cut.
    after: HashSet<char>,
}

impl Marks {
    /// The cut rule of the tokenizer in a `tokenizer.json`; `None` if it is not of this kind.
    pub(super) fn of(definition: &Value) -> Option<Self> {
        let vocabulary = definition["model"]["vocab"].as_object()?;
        let marks_spaces = vocabulary.contains_key(MARK_TEXT);
        let prefix = prefix(&definition["normalizer"], &definition["pre_tokenizer"])?;
        let added = match &definition["added_tokens"] {
            Value::Array(tokens) => tokens.iter().map(raw_token).collect::<Option<Vec<_>>>()?,
            _ => Vec::new(),
        };
        let mut before = HashSet::from([' ', MARK]);
        for token in vocabulary.keys() {
            before.extend(
                token.match_indices(MARK).filter_map(|(at, _)| token[..at].chars().next_back()),
            );
        }
        before.extend(added.iter().filter_map(|token| token.chars().next_back()));
        let after = added.iter().filter_map(|token| token.chars().next()).collect();
        marks_spaces.then_some(Self { prefix, before, after })
    }

    /// Whether a piece can have different tokens at the start of a text than inside.
    pub(super) fn start_differs(&self) -> bool {
        self.prefix == Prefix::Always
    }

    /// The text to encode for a piece that is not the first.
    pub(super) fn inner<'a>(&self, piece: &'a str) -> &'a str {
        match self.prefix {
            Prefix::Always => piece.strip_prefix(' ').unwrap_or(piece),
            Prefix::UnlessSpace => piece,
        }
    }

    /// The length of the first piece of a text: the whole text if it cannot be cut.
    pub(super) fn piece(&self, text: &str) -> usize {
        let allows = |&(at, _): &(usize, &str)| {
            let (before, after) = (text[..at].chars().next_back(), text[at + 1..].chars().next());
            before.is_some_and(|before| !self.before.contains(&before))
                && after.is_some_and(|after| !self.after.contains(&after))
        };
        text.match_indices(' ').find(allows).map_or(text.len(), |(at, _)| at)
    }
}

/// What a tokenizer prepends to a text, if replacing spaces by marks is all that it does before
/// BPE.
fn prefix(normalizer: &Value, pre_tokenizer: &Value) -> Option<Prefix> {
    let alone = std::slice::from_ref(normalizer);
    let steps = match normalizer["type"].as_str() {
        Some("Sequence") => normalizer["normalizers"].as_array()?.as_slice(),
        Some(_) => alone,
        None => &[],
    };
    let replaces = |step: &Value| {
        step["type"] == "Replace"
            && step["pattern"]["String"] == " "
            && step["content"] == MARK_TEXT
    };
    let prepends = |step: &Value| step["type"] == "Prepend" && step["prepend"] == MARK_TEXT;
    match (steps, pre_tokenizer["type"].as_str()) {
        ([], Some("Metaspace")) => {
            (pre_tokenizer["replacement"] == MARK_TEXT).then_some(Prefix::UnlessSpace)
        }
        ([first, second], None) if prepends(first) && replaces(second) => Some(Prefix::Always),
        ([step], None) if replaces(step) => Some(Prefix::UnlessSpace),
        // No space is left to split at.
        ([step], Some("Split")) if replaces(step) && pre_tokenizer["pattern"]["String"] == " " => {
            Some(Prefix::UnlessSpace)
        }
        _ => None,
    }
}

/// The content of a token that is matched in the raw text and contains no space.
fn raw_token(token: &Value) -> Option<&str> {
    let unset = |key: &str| token[key] == false;
    let plain = ["lstrip", "rstrip", "single_word", "normalized"].into_iter().all(unset);
    token["content"].as_str().filter(|content| plain && !content.contains(' '))
}
