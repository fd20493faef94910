//! A text with a name.

/// A text with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The source of the text for messages: a file, or a line or row of one.
    pub name: String,
    /// The text: bytes that need not be UTF-8.
    pub text: Vec<u8>,
}

/// Returns the bytes of text in all documents.
pub fn text_bytes(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.text.len()).sum()
}
