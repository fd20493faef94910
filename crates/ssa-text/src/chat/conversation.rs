//! Conversations.

use crate::{Json, Result, TextError};

/// Messages and the tools that they can call.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// A list of objects.
    messages: Json,
    /// A list, if there are tools.
    tools: Option<Json>,
}

impl Default for Conversation {
    /// A conversation without messages.
    fn default() -> Self {
        Self { messages: Json::List(Vec::new()), tools: None }
    }
}

/// Message keys that only a chat template can render.
const TEMPLATE_KEYS: [&str; 7] = [
    "tool_calls",
    "function_call",
    "tool_call_id",
    "reasoning_content",
    "reasoning",
    "thinking",
    "name",
];

impl Conversation {
    /// Creates a conversation from a list of messages, each an object with the keys of its
    /// template, and tool definitions, as a list or as a JSON string of one. `null` means no
    /// messages or no tools.
    ///
    /// # Errors
    /// [`TextError::Conversation`] if the values have other types.
    pub fn new(messages: Json, tools: Option<Json>) -> Result<Self> {
        let wrong = |cause: String| Err(TextError::Conversation { cause });
        let messages = match messages {
            Json::Null => Json::List(Vec::new()),
            Json::List(list) => Json::List(list),
            other => return wrong(format!("expected a list of messages, found {}", kind(&other))),
        };
        if let Json::List(list) = &messages
            && let Some((number, other)) =
                list.iter().enumerate().find(|(_, message)| !matches!(message, Json::Object(_)))
        {
            return wrong(format!("message {number} is {}, expected an object", kind(other)));
        }
        let tools = match tools {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => match Json::parse(text.as_bytes()) {
                Ok(Json::List(list)) => Some(Json::List(list)),
                Ok(Json::Null) => None,
                Ok(other) => return wrong(format!("`tools` is {} as JSON", kind(&other))),
                Err(cause) => return wrong(format!("`tools` is a string but not JSON: {cause}")),
            },
            Some(Json::List(list)) => Some(Json::List(list)),
            Some(other) => return wrong(format!("`tools` is {}, expected a list", kind(&other))),
        };
        Ok(Self { messages, tools })
    }

    /// Parses a conversation from a JSON array of messages.
    ///
    /// # Errors
    /// [`TextError::Conversation`] if the text is not such an array.
    pub fn from_json(messages: &[u8]) -> Result<Self> {
        let messages = Json::parse(messages)
            .map_err(|cause| TextError::Conversation { cause: format!("not JSON: {cause}") })?;
        Self::new(messages, None)
    }

    /// Appends a message of text.
    pub fn push(&mut self, role: &str, content: &str) {
        let Json::List(messages) = &mut self.messages else { return };
        let entry = |key: &str, text: &str| (key.to_owned(), Json::String(text.to_owned()));
        messages.push(Json::Object(vec![entry("role", role), entry("content", content)]));
    }

    /// Removes the last message.
    pub fn pop(&mut self) {
        if let Json::List(messages) = &mut self.messages {
            messages.pop();
        }
    }

    /// Whether there are no messages.
    pub fn is_empty(&self) -> bool {
        matches!(&self.messages, Json::List(list) if list.is_empty())
    }

    /// Approximate bytes of memory.
    pub fn bytes(&self) -> usize {
        self.messages.bytes() + self.tools.as_ref().map_or(0, Json::bytes)
    }

    pub(super) fn messages(&self) -> &Json {
        &self.messages
    }

    pub(super) fn tools(&self) -> Option<&Json> {
        self.tools.as_ref()
    }

    /// Renders the text without a template: paragraphs `role: content`.
    ///
    /// # Errors
    /// [`TextError::Conversation`] names the message and the key that needs a template.
    pub(crate) fn paragraphs(&self) -> Result<String> {
        let needs_template = |what: String| TextError::Conversation {
            cause: format!(
                "{what} needs a chat template, but the tokenizer has none\nhint: use the tokenizer \
                 of a chat model"
            ),
        };
        if self.tools.as_ref().is_some_and(is_set) {
            return Err(needs_template("`tools`".to_owned()));
        }
        let Json::List(messages) = &self.messages else { return Ok(String::new()) };
        let mut text = String::new();
        for (number, message) in messages.iter().enumerate() {
            if let Some(key) =
                TEMPLATE_KEYS.into_iter().find(|key| message.get(key).is_some_and(is_set))
            {
                return Err(needs_template(format!("`{key}` of message {number}")));
            }
            let Some(Json::String(role)) = message.get("role") else {
                let cause = format!("message {number} has no `role`, or it is not a string");
                return Err(TextError::Conversation { cause });
            };
            let content = match message.get("content") {
                Some(content) => content_text(content),
                None => Some(String::new()),
            };
            let content =
                content.ok_or_else(|| needs_template(format!("`content` of message {number}")))?;
            text.extend([role, ": ", &content, "\n\n"]);
        }
        Ok(text)
    }
}

/// The text of a message content: a string, null, or parts of type `text`.
fn content_text(content: &Json) -> Option<String> {
    match content {
        Json::Null => Some(String::new()),
        Json::String(text) => Some(text.clone()),
        Json::List(parts) => parts
            .iter()
            .map(|part| match (part.get("type"), part.get("text")) {
                (Some(Json::String(kind)), Some(Json::String(text))) if kind == "text" => {
                    Some(text.as_str())
                }
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// Whether a value is not empty.
fn is_set(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::String(text) => !text.is_empty(),
        Json::List(items) => !items.is_empty(),
        Json::Object(entries) => !entries.is_empty(),
        Json::Bool(_) | Json::Int(_) | Json::Float(_) => true,
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Int(_) | Json::Float(_) => "a number",
        Json::String(_) => "a string",
        Json::List(_) => "a list",
        Json::Object(_) => "an object",
    }
}
