//! Where to cut for tokenizers that write a space as a mark (`\u{2581}`), as those of Llama 2,
//! Mistral and Gemma do.
//!
//! They do not split a text into words: merges may join anything to anything, as far as the result
//! is a token. So if no token holds a character `c` before a mark, nothing is ever joined across
//! `c` and a space, and the two sides can be encoded on their own. In published vocabularies `c`
//! can be any character but a mark and one or two more.
//!
//! What else looks at both sides is kept away from the cut:
//!
//! * tokens that are found in the raw text before anything else (`</s>`): they have no space
//!   inside, and no cut is made where one could end or begin;
//! * a mark that is put in front of every text ([`Prefix::Always`]): a later piece is encoded
//!   without its space, for which that mark then stands.

use std::collections::HashSet;

use serde_json::Value;

/// Stands for a space.
const MARK: char = '\u{2581}';
/// The same as the tokenizer's file has it.
const MARK_TEXT: &str = "\u{2581}";

/// What is put in front of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// A mark, always.
    Always,
    /// Nothing, or a mark unless a space is there.
    UnlessSpace,
}

/// The places to cut of one tokenizer.
#[derive(Debug)]
pub(crate) struct Marks {
    prefix: Prefix,
    /// Characters that a cut must not follow.
    before: HashSet<char>,
    /// Characters that must not follow the space at a cut.
    after: HashSet<char>,
}

impl Marks {
    /// The places to cut of the tokenizer that a `tokenizer.json` defines; `None` if it is not of
    /// this kind.
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

    /// Whether a piece at the start of a text can have other tokens than inside.
    pub(super) fn start_differs(&self) -> bool {
        self.prefix == Prefix::Always
    }

    /// What to encode in place of a piece that is not the first.
    pub(super) fn inner<'a>(&self, piece: &'a str) -> &'a str {
        match self.prefix {
            Prefix::Always => piece.strip_prefix(' ').unwrap_or(piece),
            Prefix::UnlessSpace => piece,
        }
    }

    /// The length of the first piece of a text: all of it where there is no place to cut.
    pub(super) fn piece(&self, text: &str) -> usize {
        let allows = |&(at, _): &(usize, &str)| {
            let (before, after) = (text[..at].chars().next_back(), text[at + 1..].chars().next());
            before.is_some_and(|before| !self.before.contains(&before))
                && after.is_some_and(|after| !self.after.contains(&after))
        };
        text.match_indices(' ').find(allows).map_or(text.len(), |(at, _)| at)
    }
}

/// What a tokenizer puts in front of a text, if marks for spaces are all that it does before BPE.
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
        // No space is left that it could split at.
        ([step], Some("Split")) if replaces(step) && pre_tokenizer["pattern"]["String"] == " " => {
            Some(Prefix::UnlessSpace)
        }
        _ => None,
    }
}

/// The content of a token that is found in the raw text as it is, and has no space inside.
fn raw_token(token: &Value) -> Option<&str> {
    let unset = |key: &str| token[key] == false;
    let plain = ["lstrip", "rstrip", "single_word", "normalized"].into_iter().all(unset);
    token["content"].as_str().filter(|content| plain && !content.contains(' '))
}
