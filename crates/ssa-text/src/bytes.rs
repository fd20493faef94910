//! The built-in tokenizer.

use crate::document::Document;
use crate::{Result, TextError};

/// One token per byte: ids 0..=255 are the byte values, 256 ends a document.
///
/// It needs no vocabulary file and accepts any bytes, UTF-8 or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteTokenizer;

impl ByteTokenizer {
    /// The id that ends every document.
    pub const EOS: u32 = 256;
    /// Number of ids: 256 byte values and the end of document.
    pub const VOCAB_SIZE: usize = 257;

    /// Encodes a text, without [`EOS`](Self::EOS), which packing appends.
    pub fn encode(&self, text: &[u8]) -> Vec<u32> {
        text.iter().map(|&byte| u32::from(byte)).collect()
    }

    /// Encodes each document, in order.
    pub fn encode_documents(&self, documents: &[Document]) -> Vec<Vec<u32>> {
        documents.iter().map(|document| self.encode(&document.text)).collect()
    }

    /// Decodes ids to bytes; [`EOS`](Self::EOS) is skipped.
    ///
    /// # Errors
    /// [`TextError::UnknownToken`] for an id above [`EOS`](Self::EOS).
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(ids.len());
        for &id in ids {
            match u8::try_from(id) {
                Ok(byte) => text.push(byte),
                Err(_) if id == Self::EOS => {}
                Err(_) => return Err(TextError::UnknownToken { id, vocab_size: Self::VOCAB_SIZE }),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let ids = ByteTokenizer.encode(&text);
            prop_assert!(ids.iter().all(|&id| id < ByteTokenizer::EOS));
            prop_assert_eq!(ByteTokenizer.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn bytes_need_not_be_utf8_and_eos_is_skipped() {
        assert_eq!(ByteTokenizer.encode(&[0, 0xff, b'a']), [0, 255, 97]);
        assert_eq!(ByteTokenizer.decode(&[0xff, ByteTokenizer::EOS, 97]).unwrap(), [0xff, 97]);
    }

    #[test]
    fn unknown_ids_are_refused() {
        let error = ByteTokenizer.decode(&[1, 257]).unwrap_err().to_string();
        assert_eq!(
            error,
            "token 257 does not exist in a vocabulary of 257\nhint: use the tokenizer that made \
             the tokens"
        );
    }
}
