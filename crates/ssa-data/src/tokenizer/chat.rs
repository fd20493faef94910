//! Conversations as text.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, ..
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A conversation where no template says otherwise.
pub(super) fn paragraphs(messages: &[Message]) -> String {
    messages.iter().map(|Message { role, content }| format!("{role}: {content}\n\n")).collect()
}

/// A chat template in the language of `tokenizer_config.json` (Jinja).
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    pub(super) fn new(
        source: String,
        bos_token: String,
        eos_token: String,
    ) -> Result<Self, String> {
        let mut environment = Environment::new();
        // What transformers sets: published templates count on it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(|error| error.to_string())?;
        Ok(Self { environment, bos_token, eos_token })
    }

    pub(super) fn render(&self, messages: &[Message]) -> Result<String, String> {
        let context = Value::from_pairs([
            ("messages", Value::from(Serde(messages))),
            ("bos_token", Value::from(self.bos_token.as_str())),
            ("eos_token", Value::from(self.eos_token.as_str())),
            ("add_generation_prompt", Value::from(false)),
        ]);
        let template = self.environment.get_template(NAME);
        template.and_then(|template| template.render(context)).map_err(|error| error.to_string())
    }
}
