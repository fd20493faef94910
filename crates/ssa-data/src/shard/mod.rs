//! Tokens on disk: Megatron `.bin`/`.idx` pairs and their manifest.
//!
//! ```text
//! DIR/00000.bin  00000.idx     tokens and borders of whole documents, any number of pairs
//!     00000.bytes              bytes of text of each document
//!     manifest.json            tokenizer, counts, checksums, sources
//!     tokenizer.json           a copy of the tokenizer
//! ```
//!
//! Pairs from other programs need no manifest. Everything is memory-mapped: opening a corpus reads
//! its indices, and tokens are read on request.

mod corpus;
mod idx;
mod manifest;
mod mapped;
mod part;
mod reader;
mod text_bytes;
mod writer;

pub use corpus::Corpus;
pub use idx::TokenType;
pub use manifest::{Manifest, ManifestCheck, PrepareSettings, ShardSum, SourceSum, TokenizerSum};
pub use part::Part;
pub(crate) use part::PartFiles;
pub use reader::{ShardReader, Tokens};
pub(crate) use writer::encode_tokens;
pub use writer::{ShardFiles, ShardWriter};

#[cfg(test)]
mod tests;
