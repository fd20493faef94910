//! The content of a record.

use ssa_text::{Conversation, Json};

/// The content of a record before decoding.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Payload {
    Text(Vec<u8>),
    /// A JSON object.
    Object(Vec<u8>),
    Conversation(Conversation),
    /// All fields of a row.
    Row(Json),
}
