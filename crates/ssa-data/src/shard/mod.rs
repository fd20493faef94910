//! Tokens on disk: Megatron `.bin`/`.idx` pairs and their manifest.
//!
//! ```text
//! DIR/00000.bin  00000.idx     tokens and borders of whole documents, any number of pairs
//!     00000.bytes              bytes of text of each document
//!     manifest.json            tokenizer, counts, checksums, sources
//!     tokenizer.json           a copy of the tokenizer
//! ```
//!
//! Pairs from other programs need no manifest. Opening a corpus reads its indices once; tokens are
//! read on request. Shards use positioned reads instead of a memory mapping, so that a file that
//! shrinks or fails while in use is an error, not a signal.

mod corpus;
mod idx;
mod manifest;
mod part;
mod positioned;
mod reader;
mod text_bytes;
mod writer;

pub use corpus::Corpus;
pub use idx::TokenType;
pub use manifest::{Manifest, ManifestCheck, PrepareSettings, ShardSum, SourceSum, TokenizerSum};
pub use part::Part;
pub(crate) use part::PartFiles;
pub use reader::ShardReader;
pub(crate) use writer::encode_tokens;
pub use writer::{ShardFiles, ShardWriter};

#[cfg(test)]
mod tests;
