//! Decoding of ids that arrive one at a time: text as soon as it is final.
//!
//! The pieces of a [`Decoder`] joined are the text that [`Tokenizer::decode`] gives for all ids at
//! once. Text is held back only while a later id could still change it: an incomplete UTF-8
//! character, and a run of byte tokens (`<0xE4>`), which SentencePiece's byte fallback decodes as a
//! whole.

use crate::bytes::ByteTokenizer;
use crate::tokenizer::{HfTokenizer, Tokenizer};
use crate::{Result, TextError};

/// What stands for bytes that are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// Decodes ids one at a time.
#[derive(Debug)]
pub struct Decoder<'a>(State<'a>);

#[derive(Debug)]
enum State<'a> {
    Bytes(Utf8),
    Hf(Window<'a>),
}

impl Tokenizer {
    /// A decoder of ids that arrive one at a time.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder(match self {
            Self::Bytes => State::Bytes(Utf8::default()),
            Self::Hf(tokenizer) => State::Hf(Window::new(tokenizer)),
        })
    }
}

impl Decoder<'_> {
    /// Takes the next id and returns the text that became final, often none.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`] for an id that is not in the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String> {
        match &mut self.0 {
            State::Bytes(utf8) => Ok(utf8.push(&ByteTokenizer.decode(&[id])?)),
            State::Hf(window) => window.push(id),
        }
    }

    /// The text still held back after the last id.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn finish(self) -> Result<String> {
        match self.0 {
            State::Bytes(utf8) => Ok(utf8.finish()),
            State::Hf(window) => window.finish(),
        }
    }
}

/// Bytes as UTF-8, without the incomplete character at their end.
#[derive(Debug, Default)]
struct Utf8 {
    incomplete: Vec<u8>,
}

impl Utf8 {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.incomplete.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.incomplete.as_slice();
        while let Some(chunk) = rest.utf8_chunks().next() {
            let read = chunk.valid().len() + chunk.invalid().len();
            let incomplete =
                read == rest.len() && str::from_utf8(rest).is_err_and(|e| e.error_len().is_none());
            text.push_str(chunk.valid());
            if incomplete {
                rest = chunk.invalid();
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(REPLACEMENT);
            }
            rest = &rest[read..];
        }
        self.incomplete = rest.to_vec();
        text
    }

    fn finish(self) -> String {
        String::from_utf8_lossy(&self.incomplete).into_owned()
    }
}

/// The last ids, decoded again with each new one: what an id means depends on whether another
/// stands before it, and one is enough to tell.
#[derive(Debug)]
struct Window<'a> {
    tokenizer: &'a HfTokenizer,
    /// The last id whose text is out, and the ids after it.
    ids: Vec<u32>,
    /// The part of their text that is out.
    out: String,
}

impl<'a> Window<'a> {
    fn new(tokenizer: &'a HfTokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), out: String::new() }
    }

    fn push(&mut self, id: u32) -> Result<String> {
        let vocab_size = self.tokenizer.vocab_size();
        if id as usize >= vocab_size {
            return Err(TextError::UnknownToken { id, vocab_size });
        }
        // Ids need not be consecutive; those without a token are no text.
        let Some(token) = self.tokenizer.token(id) else { return Ok(String::new()) };
        self.ids.push(id);
        if is_byte(&token) {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with(REPLACEMENT) {
            return Ok(String::new());
        }
        let new = after_common_prefix(&text, &self.out).to_owned();
        self.ids = vec![id];
        self.out = self.tokenizer.decode(&self.ids)?;
        Ok(new)
    }

    fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(after_common_prefix(&text, &self.out).to_owned())
    }
}

/// Whether a token stands for one byte, such as `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

fn after_common_prefix<'a>(text: &'a str, other: &str) -> &'a str {
    let mut rest = text.chars();
    for character in other.chars() {
        let mut next = rest.clone();
        if next.next() != Some(character) {
            break;
        }
        rest = next;
    }
    rest.as_str()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The text of a stream; checks that no piece is text that decoding everything lacks.
    fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        let whole = tokenizer.decode(ids).unwrap();
        let mut decoder = tokenizer.decoder();
        let mut text = String::new();
        for &id in ids {
            text += &decoder.push(id).unwrap();
            assert!(whole.starts_with(&text), "{text:?} of {whole:?}");
        }
        text + &decoder.finish().unwrap()
    }

    /// A tokenizer of these tokens, special ones first, with a decoder.
    fn tokenizer(tokens: &[&str], decoder: &Value) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let vocab: serde_json::Map<_, _> =
            tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
        let special = json!([{ "id": 0, "content": "</s>", "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false }]);
        let definition = json!({ "version": "1.0", "added_tokens": special, "decoder": decoder,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "</s>" } });
        fs::write(folder.path().join("tokenizer.json"), definition.to_string()).unwrap();
        Tokenizer::load(folder.path(), None).unwrap()
    }

    const TOKENS: [&str; 22] = [
        "</s>",
        "\u{2581}",
        "\u{2581}a",
        "b",
        "##c",
        "\u{2581}\u{2581}",
        "<0x41>",
        "<0xE4>",
        "<0xB8>",
        "<0xAD>",
        "<0xFF>",
        "<0x0A>",
        "\u{e4}",
        "\u{b8}",
        "\u{143}",
        "\u{120}x",
        ".",
        " ",
        "\u{fffd}",
        "d</w>",
        "\u{4e2d}",
        "<0xZZ>",
    ];

    fn decoders() -> Vec<Value> {
        let replace = json!({ "type": "Replace", "pattern": { "String": "\u{2581}" },
            "content": " " });
        let (fallback, fuse) = (json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" }));
        let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
        let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": true });
        let metaspace = |scheme: &str| {
            json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme,
                "split": true })
        };
        vec![
            json!({ "type": "Sequence", "decoders": [replace, fallback, fuse, strip] }),
            json!({ "type": "Sequence", "decoders": [fallback, metaspace("always")] }),
            json!({ "type": "Sequence", "decoders": [byte_level] }),
            byte_level,
            metaspace("first"),
            metaspace("never"),
            json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
            json!({ "type": "BPEDecoder", "suffix": "</w>" }),
            Value::Null,
        ]
    }

    #[test]
    fn a_stream_is_the_text_of_all_ids() {
        for decoder in decoders() {
            let tokenizer = tokenizer(&TOKENS, &decoder);
            let ids = prop::collection::vec(0..TOKENS.len() as u32, 0..24);
            let mut runner = proptest::test_runner::TestRunner::deterministic();
            runner
                .run(&ids, |ids| {
                    let whole = tokenizer.decode(&ids).unwrap();
                    prop_assert_eq!(streamed(&tokenizer, &ids), whole, "{}", decoder);
                    Ok(())
                })
                .unwrap();
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_streamed(
            text in prop::collection::vec(any::<char>(), 0..20),
            noise in prop::collection::vec((0..80_usize, any::<u8>()), 0..8),
        ) {
            let mut bytes = text.into_iter().collect::<String>().into_bytes();
            for (place, byte) in noise {
                bytes.insert(place.min(bytes.len()), byte);
            }
            let ids = ByteTokenizer.encode(&bytes);
            prop_assert_eq!(streamed(&Tokenizer::Bytes, &ids), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn characters_appear_when_they_are_whole() {
        let pieces = |tokenizer: &Tokenizer, ids: &[u32]| -> Vec<String> {
            let mut decoder = tokenizer.decoder();
            let mut pieces: Vec<_> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
            pieces.push(decoder.finish().unwrap());
            pieces
        };
        let bytes = Tokenizer::Bytes;
        assert_eq!(pieces(&bytes, &[0xe4, 0xb8, 0xad, 0x61]), ["", "", "\u{4e2d}", "a", ""]);
        assert_eq!(
            pieces(&bytes, &[0xe4, 0x61, 0xff, 0xe4]),
            ["", "\u{fffd}a", "\u{fffd}", "", "\u{fffd}"]
        );
        assert_eq!(pieces(&bytes, &[0x61, ByteTokenizer::EOS]), ["a", "", ""]);
        let byte_level = tokenizer(&TOKENS, &decoders()[3]);
        assert_eq!(pieces(&byte_level, &[15, 12, 13, 14, 3]), [" x", "", "", "\u{4e2d}", "b", ""]);
        // The run of bytes is known when it ends.
        let sentencepiece = tokenizer(&TOKENS, &decoders()[0]);
        assert_eq!(
            pieces(&sentencepiece, &[2, 7, 8, 9, 2, 11]),
            ["a", "", "", "", "\u{4e2d} a", "", "\n"]
        );
    }

    #[test]
    fn unknown_ids_are_refused_and_holes_are_no_text() {
        let sentencepiece = tokenizer(&["</s>", "\u{2581}a"], &decoders()[0]);
        let error = sentencepiece.decoder().push(2).unwrap_err().to_string();
        assert!(error.starts_with("token 2 does not exist in a vocabulary of 2"), "{error}");
        let error = Tokenizer::Bytes.decoder().push(257).unwrap_err().to_string();
        assert!(error.starts_with("token 257 does not exist"), "{error}");
    }
}
