//! Held-out text, packed into rows for evaluation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open_corpus;
use crate::packing::{PackOptions, PackedRows, Packing, Remainder, pack_documents};
use crate::token_source::TokenSource;
use crate::{Document, Result, Tokenizer, text_bytes};

/// Held-out data for evaluation.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// At least one part: one per corpus, or one for text.
    pub parts: Vec<HeldOutPart>,
    /// Bits per byte of the held-out text for a unigram model of the training text. `None` for
    /// corpora, and for tokenizers other than bytes.
    pub baseline_bits_per_byte: Option<f64>,
}

/// Rows of one source.
#[derive(Clone, Debug)]
pub struct HeldOutPart {
    /// The name of the source, for messages.
    pub name: String,
    /// Rows of [`Packing::Concat`], at most as many as requested.
    pub rows: PackedRows,
    /// Tokens of the source; `rows` may hold only the first ones.
    pub total_tokens: u64,
    /// Bytes of text per target token, with end-of-document tokens.
    pub bytes_per_target: f64,
}

/// Number of tokens of a corpus to decode for the bytes per target.
const DECODED_TOKENS: usize = 1 << 22;

impl HeldOut {
    /// Packs all rows of some documents.
    ///
    /// # Errors
    /// [`DataError`](crate::DataError) without text, for an invalid sequence length, or if the
    /// tokenizer refuses a document.
    pub fn from_documents(
        documents: &[Document],
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> Result<Self> {
        let part = OpenPart::of_text("text".to_owned(), documents, tokenizer)?;
        let parts = pack_parts(vec![part], tokenizer, sequence_length, usize::MAX)?;
        Ok(Self { parts, baseline_bits_per_byte: None })
    }

    /// Packs all rows of corpora of shards made with `tokenizer`.
    ///
    /// # Errors
    /// [`DataError`](crate::DataError) names the file.
    pub fn from_corpora(
        paths: &[PathBuf],
        tokenizer: &Tokenizer,
        sequence_length: usize,
    ) -> Result<Self> {
        let open = |path: &PathBuf| OpenPart::of_corpus(path, tokenizer, false);
        let parts = paths.iter().map(open).collect::<Result<_>>()?;
        let parts = pack_parts(parts, tokenizer, sequence_length, usize::MAX)?;
        Ok(Self { parts, baseline_bits_per_byte: None })
    }

    /// The rows of each part.
    pub fn rows(&self) -> impl Iterator<Item = &PackedRows> {
        self.parts.iter().map(|part| &part.rows)
    }

    /// Tokens of all rows, without padding.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.rows.valid_tokens()).sum()
    }

    /// Tokens of all sources; the rows may hold only the first ones.
    pub fn total_tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.total_tokens).sum()
    }
}

/// Held-out documents before packing.
pub(super) struct OpenPart {
    pub(super) name: String,
    pub(super) source: Arc<TokenSource>,
    pub(super) documents: Vec<u32>,
    pub(super) weight: f64,
    /// Known for text; estimated for corpora by decoding.
    pub(super) bytes_per_target: Option<f64>,
}

impl OpenPart {
    pub(super) fn of_text(
        name: String,
        documents: &[Document],
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let ids = tokenizer.encode_documents(documents)?;
        // The first token of a document is not a target; its end is.
        let targets: usize = ids.iter().map(Vec::len).sum();
        let source = TokenSource::in_memory(&ids, tokenizer.eos());
        Ok(Self {
            name,
            documents: source.all_documents()?,
            source: Arc::new(source),
            weight: 1.0,
            bytes_per_target: Some(text_bytes(documents) as f64 / targets as f64),
        })
    }

    pub(super) fn of_corpus(
        path: &Path,
        tokenizer: &Tokenizer,
        verify_checksums: bool,
    ) -> Result<Self> {
        let source = open_corpus(path, tokenizer, verify_checksums)?;
        let documents = source.all_documents()?;
        let name = path.display().to_string();
        Ok(Self { name, source, documents, weight: 1.0, bytes_per_target: None })
    }

    /// Packs the first rows, with about `tokens` tokens.
    fn pack(
        self,
        tokenizer: &Tokenizer,
        sequence_length: usize,
        tokens: f64,
    ) -> Result<HeldOutPart> {
        let options = PackOptions {
            sequence_length,
            packing: Packing::Concat,
            // Uses all rows, or a sample that depends on the run only through the split.
            seed: 0,
            remainder: Remainder::Pad,
        };
        let bytes_per_target = match self.bytes_per_target {
            Some(known) => known,
            None => self.source.bytes_per_target(&self.documents, tokenizer, DECODED_TOKENS)?,
        };
        let rows = pack_documents(self.source, &self.documents, &options)?;
        let total_tokens = rows.valid_tokens();
        let rows = rows.first((tokens / sequence_length as f64).ceil() as usize);
        Ok(HeldOutPart { name: self.name, rows, total_tokens, bytes_per_target })
    }
}

/// Packs every part into rows, up to its share of `tokens`.
pub(super) fn pack_parts(
    parts: Vec<OpenPart>,
    tokenizer: &Tokenizer,
    sequence_length: usize,
    tokens: usize,
) -> Result<Vec<HeldOutPart>> {
    let total: f64 = parts.iter().map(|part| part.weight).sum();
    let pack = |part: OpenPart| {
        let tokens = tokens as f64 * part.weight / total;
        part.pack(tokenizer, sequence_length, tokens)
    };
    parts.into_iter().map(pack).collect()
}
