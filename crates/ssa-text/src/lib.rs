//! From text to token ids and back, without input formats, downloads or training code.
//!
//! ```text
//! text           Tokenizer::encode, Encoder::append      -> ids
//! ids            Tokenizer::decode, Decoder::push        -> text
//! conversation   Tokenizer::render, render_prompt        -> text, as in transformers
//! fields         Template::render                        -> text, as in lm-evaluation-harness
//! documents      train_tokenizer                         -> tokenizer.json
//! ```
//!
//! A server can use this crate alone: it does not depend on Parquet, compression or the network.
//!
//! ```
//! use ssa_text::{Conversation, Tokenizer};
//!
//! # fn main() -> Result<(), ssa_text::TextError> {
//! let messages = br#"[{"role": "user", "content": "Hi"}]"#;
//! let conversation = Conversation::from_json(messages)?;
//! assert_eq!(Tokenizer::Bytes.render(&conversation)?, "user: Hi\n\n");
//! assert_eq!(Tokenizer::Bytes.encode(b"Hi")?, [72, 105]);
//! # Ok(())
//! # }
//! ```

mod bytes;
mod chat;
mod cuts;
mod decoder;
mod document;
mod encoder;
mod error;
mod json;
mod panics;
mod tokenizer;
mod train;

pub use bytes::ByteTokenizer;
pub use chat::{Conversation, Rendered, Template};
pub use decoder::Decoder;
pub use document::{Document, text_bytes};
pub use encoder::Encoder;
pub use error::TextError;
pub use json::Json;
pub use panics::catch_panic;
pub use tokenizer::{BYTES, HfTokenizer, TOKENIZER_FILES, TOKENIZER_JSON, Tokenizer};
pub use train::{TrainTokenizerOptions, train_tokenizer};

/// Result of every fallible function in this crate.
pub type Result<T, E = TextError> = std::result::Result<T, E>;
