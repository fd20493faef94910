//! What a record holds.

use ssa_text::Conversation;

/// What a record holds before it is decoded.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Payload {
    Text(Vec<u8>),
    /// A JSON object.
    Object(Vec<u8>),
    Conversation(Conversation),
}
