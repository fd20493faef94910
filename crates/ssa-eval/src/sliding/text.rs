//! The documents of an evaluation and their scored spans.

use std::ops::Range;

use ssa_data::{Document, Tokenizer};
use ssa_files::Sha256;
use ssa_report::number::{counted, grouped};

use crate::{EvalError, Result};

/// Which tokens are scored.
#[derive(Clone, Debug)]
pub struct WindowSettings {
    /// The window lengths in tokens, in the order of the results.
    pub lengths: Vec<usize>,
    /// S, the tokens that a window scores.
    pub stride: usize,
    /// Only so many spans, spread evenly over all; `None` for all.
    pub most: Option<usize>,
}

/// The documents that are long enough, and their spans.
#[derive(Debug)]
pub struct SlidingText {
    pub(super) settings: WindowSettings,
    documents: Vec<EncodedDocument>,
    spans: Vec<Span>,
    /// Documents without a span.
    short: usize,
}

#[derive(Debug)]
struct EncodedDocument {
    tokens: Vec<u32>,
    bytes_per_token: f64,
}

/// Tokens of a document that are scored together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    document: usize,
    pub(super) tokens: Range<usize>,
}

/// A span with its context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    /// What the model reads: all but the last token.
    pub(super) ids: &'a [u32],
    /// What is scored.
    pub(super) targets: &'a [u32],
}

impl SlidingText {
    /// Encodes documents and keeps those that are longer than the longest window less the stride.
    ///
    /// # Errors
    /// [`EvalError::Task`] if the stride is not shorter than all windows, or if no document is long
    /// enough; [`EvalError::Data`] for a text that cannot be encoded.
    pub fn new(
        documents: &[Document],
        tokenizer: &Tokenizer,
        settings: WindowSettings,
    ) -> Result<Self> {
        let WindowSettings { ref lengths, stride, most } = settings;
        let shortest = lengths.iter().copied().min().unwrap_or(0);
        if stride == 0 || stride >= shortest {
            return Err(EvalError::task(
                format!("--stride {stride}"),
                format!("must be shorter than the shortest window of {}", tokens(shortest)),
                "pass a smaller --stride, or longer --lengths",
            ));
        }
        let first = lengths.iter().copied().max().unwrap_or(0) - stride;
        let (mut kept, mut spans, mut longest) = (Vec::new(), Vec::new(), 0);
        for document in documents {
            let encoded = tokenizer.encode_documents(std::slice::from_ref(document))?.concat();
            longest = longest.max(encoded.len());
            if encoded.len() <= first {
                continue;
            }
            let starts = (first..encoded.len()).step_by(stride);
            spans.extend(starts.map(|start| Span {
                document: kept.len(),
                tokens: start..encoded.len().min(start + stride),
            }));
            let bytes_per_token = document.text.len() as f64 / encoded.len() as f64;
            kept.push(EncodedDocument { tokens: encoded, bytes_per_token });
        }
        if spans.is_empty() {
            return Err(EvalError::task(
                "--data",
                format!(
                    "no document has more than {}, the longest window less the stride: the \
                     longest has {}",
                    tokens(first),
                    grouped(longest)
                ),
                "pass shorter --lengths, or longer documents",
            ));
        }
        if let Some(most) = most.filter(|&most| most < spans.len()) {
            let all = spans.len();
            spans = (0..most).map(|index| spans[index * all / most].clone()).collect();
        }
        let short = documents.len() - kept.len();
        Ok(Self { settings, documents: kept, spans, short })
    }

    /// Documents that are long enough.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Documents that are too short for the longest window.
    pub fn short_documents(&self) -> usize {
        self.short
    }

    /// Number of spans, each of which is scored in a window of every length.
    pub fn windows(&self) -> usize {
        self.spans.len()
    }

    /// Number of scored tokens.
    pub fn scored(&self) -> usize {
        self.spans.iter().map(|span| span.tokens.len()).sum()
    }

    /// A checksum of the documents and of what is scored.
    pub fn sha256(&self) -> String {
        let mut sum = Sha256::default();
        for document in &self.documents {
            sum.update(document.tokens.len().to_le_bytes());
            document.tokens.iter().for_each(|token| sum.update(token.to_le_bytes()));
        }
        sum.update(format!("{:?}{:?}", self.settings, self.spans));
        sum.finish().to_string()
    }

    /// Bytes of text that the scored tokens cover: exact for byte tokens, by the mean token size of
    /// each document otherwise.
    pub(super) fn bytes(&self) -> f64 {
        let bytes =
            |span: &Span| span.tokens.len() as f64 * self.documents[span.document].bytes_per_token;
        self.spans.iter().map(bytes).sum()
    }

    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The window of `length` tokens of a span.
    pub(super) fn window(&self, span: &Span, length: usize) -> Window<'_> {
        let document = &self.documents[span.document].tokens;
        let start = span.tokens.start + self.settings.stride - length;
        Window {
            ids: &document[start..span.tokens.end - 1],
            targets: &document[span.tokens.clone()],
        }
    }
}

fn tokens(count: usize) -> String {
    counted(count, "token")
}
