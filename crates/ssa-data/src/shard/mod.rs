//! Tokens on disk: Megatron `.bin`/`.idx` pairs and the manifest beside them.
//!
//! ```text
//! DIR/00000.bin  00000.idx     tokens and borders of whole documents, any number of pairs
//!     00000.bytes              bytes of text of each document
//!     manifest.json            what they are: tokenizer, counts, checksums, sources
//!     tokenizer.json           a copy of the tokenizer that made them
//! ```
//!
//! A pair that another program wrote needs no manifest. Opening a corpus costs a pass over its
//! indices; tokens are read when they are asked for. Positioned reads, not a memory mapping: a file
//! that shrinks or fails while it is in use is an error and not a signal.

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
