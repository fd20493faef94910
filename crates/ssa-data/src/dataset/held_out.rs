//! Text that is not trained on, in rows to measure on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open_corpus;
use crate::packing::{PackOptions, PackedRows, Packing, Remainder, pack_documents};
use crate::token_source::TokenSource;
use crate::{Document, Result, Tokenizer, text_bytes};

/// Data to measure on.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// At least one part: one for each corpus, one for text.
    pub parts: Vec<HeldOutPart>,
    /// Bits per byte of the held-out text if every byte is predicted by its frequency in the
    /// training text alone. `None` for corpora, and for tokens other than bytes.
    pub baseline_bits_per_byte: Option<f64>,
}

/// Rows of one source.
#[derive(Clone, Debug)]
pub struct HeldOutPart {
    /// Where the rows come from, for messages.
    pub name: String,
    /// Rows of [`Packing::Concat`], no more than were asked for.
    pub rows: PackedRows,
    /// Tokens of the source, of which `rows` may be the first ones only.
    pub total_tokens: u64,
    /// Bytes of text for every target token, the end-of-document tokens included.
    pub bytes_per_target: f64,
}

/// Tokens of a corpus that are decoded to find the bytes of text of a target.
const DECODED_TOKENS: usize = 1 << 22;

impl HeldOut {
    /// All rows of some documents.
    ///
    /// # Errors
    /// [`DataError`](crate::DataError) without text, for an impossible sequence length, or if the
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

    /// All rows of corpora of shards that were made with `tokenizer`.
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

    /// Tokens of all rows, padding excluded.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.rows.valid_tokens()).sum()
    }

    /// Tokens of all sources, of which the rows may be the first ones only.
    pub fn total_tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.total_tokens).sum()
    }
}

/// Documents to measure on, before they are packed.
pub(super) struct OpenPart {
    pub(super) name: String,
    pub(super) source: Arc<TokenSource>,
    pub(super) documents: Vec<u32>,
    pub(super) weight: f64,
    /// Known for text; corpora are decoded.
    pub(super) bytes_per_target: Option<f64>,
}

impl OpenPart {
    pub(super) fn of_text(
        name: String,
        documents: &[Document],
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let ids = tokenizer.encode_documents(documents)?;
        // The first token of a document is no target, its end is one.
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

    /// The first rows, of about `tokens` tokens.
    fn pack(
        self,
        tokenizer: &Tokenizer,
        sequence_length: usize,
        tokens: f64,
    ) -> Result<HeldOutPart> {
        let options = PackOptions {
            sequence_length,
            packing: Packing::Concat,
            // All rows are measured, or a sample that depends on the run only through the split.
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

/// Packs every part into rows of its share of `tokens`.
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
