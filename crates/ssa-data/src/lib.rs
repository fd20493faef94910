//! From text files to batches of packed rows of tokens.
//!
//! ```text
//! documents  read_documents, snapshot      each with a name and bytes of text
//!   -> split       split                   a training and a held-out part
//!   -> tokens      Tokenizer               ids of each document: TokenSource, in memory or shards
//!   -> rows        pack, pack_documents    rows of equal length that keep document borders
//!   -> batches     Loader, sequential_batches; Mixture for several corpora, Prefetch
//! DatasetOptions   all of it for a run: training and held-out data
//! ```
//!
//! Each step is a function of its arguments and, if it is random, of a seed. There is no hidden
//! state, and equal seeds give equal batches on every platform.
//!
//! ```
//! use ssa_data::{ByteTokenizer, Loader, PackOptions, Packing, Remainder};
//! use ssa_data::{pack, snapshot, split, text_bytes, unigram_bits_per_byte};
//!
//! # fn main() -> Result<(), ssa_data::DataError> {
//! let parts = split(snapshot()?, 0.1, 7)?;
//! let tokens = ByteTokenizer.encode_documents(&parts.train);
//! let (packing, remainder) = (Packing::Concat, Remainder::Drop);
//! let options = PackOptions { sequence_length: 256, packing, seed: 7, remainder };
//! let rows = pack(&tokens, ByteTokenizer::EOS, &options)?;
//! let loader = Loader::new(rows, 4, 7)?;
//! let batch = loader.batch(0)?;
//! assert_eq!((batch.batch, batch.tokens, batch.ids.len()), (4, 256, 1024));
//! assert_eq!(batch.cu_seqlens.last(), Some(&1024));
//!
//! // Evaluation keeps the last, partial row and sees every row once.
//! let tokens = ByteTokenizer.encode_documents(&parts.held_out);
//! let options = PackOptions { remainder: Remainder::Pad, ..options };
//! let rows = pack(&tokens, ByteTokenizer::EOS, &options)?;
//! let mut targets = 0;
//! for batch in rows.sequential_batches(4)? {
//!     targets += batch?.target_tokens();
//! }
//! assert_eq!(targets, text_bytes(&parts.held_out));
//! assert!(unigram_bits_per_byte(&parts.train, &parts.held_out) < 8.0);
//! # Ok(())
//! # }
//! ```

mod bits_per_byte;
mod corpus;
mod dataset;
mod error;
mod file_sum;
mod input;
mod inspect;
mod loader;
mod mixture;
mod packing;
mod permutation;
mod prefetch;
mod prepare;
mod random;
mod shard;
mod snapshot;
mod split;
mod token_source;

pub use bits_per_byte::{bits_per_byte, unigram_bits_per_byte};
pub use corpus::corpus_tokenizer;
pub use dataset::{
    Dataset, DatasetOptions, HELD_OUT_FRACTION, HeldOut, HeldOutPart, HeldOutSource, TrainSource,
    common_tokenizer,
};
pub use error::DataError;
pub use file_sum::FileSum;
pub use input::{
    Format, InputOptions, Record, Records, Row, Source, Sources, documents, find_sources,
    load_tokenizer, model_directory, read_documents, read_rows,
};
pub use inspect::{TokenCounts, count_tokens, decode_row, verify};
pub use loader::{Batch, Loader};
pub use mixture::{Mixture, RowId};
pub use packing::{
    IGNORE_INDEX, PackOptions, PackedRow, PackedRows, Packing, Remainder, pack, pack_documents,
};
pub use prefetch::Prefetch;
pub use prepare::{PrepareOptions, PrepareProgress, Prepared, SHARD_TOKENS, prepare};
pub use shard::{
    Corpus, Manifest, ManifestCheck, Part, PrepareSettings, ShardFiles, ShardReader, ShardSum,
    ShardWriter, SourceSum, TokenType, TokenizerSum,
};
pub use snapshot::{decode_snapshot, encode_snapshot, snapshot};
pub use split::{Split, split};
pub use token_source::{DocumentSplit, ShardSource, TokenSource, TokenTable};
// Re-exported because most of this crate's functions use them.
pub use ssa_text::{
    BYTES, ByteTokenizer, Conversation, Decoder, Document, Encoder, HfTokenizer, TOKENIZER_FILES,
    TOKENIZER_JSON, TextError, Tokenizer, TrainTokenizerOptions, text_bytes, train_tokenizer,
};

/// Result of every fallible function in this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;
