//! Contexts, continuations and texts as tokens, cut as the harness cuts them.

use ssa_data::{Encoder, Tokenizer};
use ssa_text::TextError;

use super::preprocess::is_space;

/// A context and the tokens that are scored after it. Neither is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    pub(super) context: Vec<u32>,
    pub(super) tokens: Vec<u32>,
}

impl Continuation {
    /// The tokens that a model reads: the last one is only predicted.
    pub(super) fn len(&self) -> usize {
        self.context.len() + self.tokens.len() - 1
    }
}

/// Encodes the texts of requests.
pub(super) struct PromptEncoder<'a> {
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    /// The tokens that the tokenizer puts before every text.
    special: Vec<u32>,
    /// The token before a text that has no other context.
    prefix: u32,
    /// Its text: a prompt that begins with it gets no special tokens.
    prefix_text: String,
}

impl<'a> PromptEncoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Result<Self, TextError> {
        let prefix = tokenizer.bos().unwrap_or_else(|| tokenizer.eos());
        Ok(Self {
            tokenizer,
            encoder: tokenizer.encoder(),
            special: tokenizer.encode_prompt(b"")?,
            prefix,
            prefix_text: tokenizer.decode(&[prefix])?,
        })
    }

    /// The tokens of a prompt, with those that the tokenizer puts before every text.
    pub(super) fn prompt(&mut self, text: &str) -> Result<Vec<u32>, TextError> {
        let begun = !self.prefix_text.is_empty() && text.starts_with(&self.prefix_text);
        let mut ids = if begun { Vec::new() } else { self.special.clone() };
        self.encoder.append(text.as_bytes(), &mut ids)?;
        Ok(ids)
    }

    /// The tokens of a text alone.
    pub(super) fn plain(&mut self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        self.encoder.append(text.as_bytes(), &mut ids)?;
        Ok(ids)
    }

    /// The text of tokens, without special ones.
    pub(super) fn text_of(&self, ids: &[u32]) -> Result<String, TextError> {
        self.tokenizer.decode_visible(ids)
    }

    /// A context with its continuation: the tokens of both together, divided after as many as the
    /// context has alone. White space at the end of the context belongs to the continuation. An
    /// empty context is the token that begins a text.
    pub(super) fn pair(
        &mut self,
        context: &str,
        continuation: &str,
    ) -> Result<Continuation, TextError> {
        if context.is_empty() {
            let mut tokens = self.tokenizer.encode(continuation.as_bytes())?;
            let has_prefix = tokens.first() == Some(&self.prefix);
            let context = vec![if has_prefix { tokens.remove(0) } else { self.prefix }];
            return Ok(Continuation { context, tokens });
        }
        let mut tokens = self.prompt(&[context, continuation].concat())?;
        let mut context = self.prompt(context.trim_end_matches(is_space))?;
        let tokens = tokens.split_off(context.len().min(tokens.len()));
        if context.is_empty() {
            context.push(self.prefix);
        }
        Ok(Continuation { context, tokens })
    }

    /// A whole text in windows of up to `length` tokens. Each window is scored after the last token
    /// of the one before, the first after the token that begins a text; the last has as much
    /// context as fits.
    pub(super) fn windows(
        &mut self,
        text: &str,
        length: usize,
    ) -> Result<Vec<Continuation>, TextError> {
        Ok(windows(&self.prompt(text)?, self.prefix, length))
    }
}

/// `get_rolling_token_windows` with one token of context, then `make_disjoint_window`.
fn windows(ids: &[u32], prefix: u32, length: usize) -> Vec<Continuation> {
    let first = ids.len().min(length);
    let mut all = Vec::new();
    if first > 0 {
        all.push(Continuation { context: vec![prefix], tokens: ids[..first].to_vec() });
    }
    let mut done = first;
    while done < ids.len() {
        let end = ids.len().min(done + length);
        let context = ids[end - length - 1..done].to_vec();
        all.push(Continuation { context, tokens: ids[done..end].to_vec() });
        done = end;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(context: &[u32], tokens: &[u32]) -> Continuation {
        Continuation { context: context.to_vec(), tokens: tokens.to_vec() }
    }

    #[test]
    fn windows_are_those_of_the_harness() {
        // Written down from lm_eval.utils.
        let ids: Vec<u32> = (0..10).collect();
        assert_eq!(
            windows(&ids, 99, 4),
            [pair(&[99], &[0, 1, 2, 3]), pair(&[3], &[4, 5, 6, 7]), pair(&[5, 6, 7], &[8, 9]),]
        );
        assert_eq!(windows(&ids[..4], 99, 4), [pair(&[99], &[0, 1, 2, 3])]);
        assert_eq!(windows(&ids[..2], 99, 4), [pair(&[99], &[0, 1])]);
        assert!(windows(&[], 99, 4).is_empty());
    }

    #[test]
    fn spaces_move_to_the_continuation() {
        let mut encoder = PromptEncoder::new(&Tokenizer::Bytes).unwrap();
        let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<u32>>();
        let found = encoder.pair("ab \n", "c").unwrap();
        assert_eq!(found, pair(&bytes("ab"), &bytes(" \nc")));
        // Bytes have no token that begins a text.
        assert_eq!(encoder.pair("", " c").unwrap(), pair(&[256], &bytes(" c")));
        assert_eq!(encoder.pair(" ", "c").unwrap(), pair(&[256], &bytes(" c")));
        assert_eq!(encoder.prompt("ab").unwrap(), bytes("ab"));
    }
}
