//! Renders conversations as text, like transformers' `apply_chat_template`.
//!
//! The template language is Jinja2 with the settings of transformers: `trim_blocks` and
//! `lstrip_blocks`, loop controls, `{% generation %}`, `raise_exception`, `strftime_now` (in UTC),
//! and Python's `json.dumps` as `tojson`. minijinja runs the templates; [`functions`], [`methods`]
//! and [`mod@format`] replace what differs from Python, and [`rewrite`] translates syntax that
//! minijinja lacks.
//!
//! A template is untrusted code: fuel limits its instructions, the bytes it allocates and the depth
//! of its calls. The stack is large enough to drop even the deepest value that this fuel can build,
//! and to compile even the deepest expression that a template of the greatest length can have.

mod conversation;
mod failure;
mod format;
mod functions;
mod methods;
mod rewrite;
mod template;
mod tojson;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, context};

pub use conversation::Conversation;
pub use template::{Rendered, Template};

use crate::panics::catch_panic;
use crate::{Json, Result, TextError};

/// Fuel of a template: one unit is an instruction or 64 bytes of strings and lists.
const BASE_FUEL: u64 = 2 << 20;
/// Additional units per byte of the conversation.
const FUEL_PER_BYTE: u64 = 8;
const MAX_FUEL: u64 = 16 << 20;
/// Bytes of stack per unit: a level of nesting costs several units and a few hundred bytes.
const STACK_PER_FUEL: u64 = 96;
/// Bytes of the longest template. A chain such as `x|a|a` nests every two bytes.
const LONGEST: usize = 1 << 17;
/// Maximum depth of macro calls and nested values.
const RECURSION_LIMIT: usize = 200;
const NAME: &str = "chat_template";

/// Whether the text ends where the assistant's next message begins (`add_generation_prompt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GenerationPrompt {
    Without,
    With,
}

/// The chat templates of a tokenizer, parsed on first use.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    /// The file with the templates.
    path: PathBuf,
    default: Option<Compiled>,
    /// Used instead of `default` for conversations with tools.
    tool_use: Option<Compiled>,
    /// `bos_token`, `eos_token` and so on, if the tokenizer has them.
    special_tokens: Vec<(String, Value)>,
}

#[derive(Debug)]
struct Compiled {
    source: Vec<u8>,
    environment: OnceLock<Result<Environment<'static>, String>>,
}

impl ChatTemplate {
    pub(crate) fn new(
        path: PathBuf,
        default: Option<Vec<u8>>,
        tool_use: Option<Vec<u8>>,
        special_tokens: Vec<(String, Json)>,
    ) -> Self {
        let compiled = |source: Vec<u8>| Compiled { source, environment: OnceLock::new() };
        let special_tokens =
            special_tokens.into_iter().map(|(name, token)| (name, token.to_template())).collect();
        Self {
            path,
            default: default.map(compiled),
            tool_use: tool_use.map(compiled),
            special_tokens,
        }
    }

    /// Renders a conversation.
    pub(crate) fn render(
        &self,
        conversation: &Conversation,
        prompt: GenerationPrompt,
    ) -> Result<String> {
        let failed = |cause| TextError::ChatTemplate { path: self.path.clone(), cause };
        let tool_use = self.tool_use.as_ref().filter(|_| conversation.tools().is_some());
        let Some(template) = tool_use.or(self.default.as_ref()) else {
            return Err(failed("there is no template named `default`".to_owned()));
        };
        let environment = template.environment().map_err(|cause| failed(cause.clone()))?;
        let bytes = conversation.bytes() as u64;
        let fuel = BASE_FUEL.saturating_add(bytes.saturating_mul(FUEL_PER_BYTE)).min(MAX_FUEL);
        let render = || self.render_with(environment, conversation, prompt, fuel);
        on_large_stack(fuel, render).map_err(failed)
    }

    fn render_with(
        &self,
        environment: &Environment<'static>,
        conversation: &Conversation,
        prompt: GenerationPrompt,
        fuel: u64,
    ) -> Result<String, String> {
        let mut environment = environment.clone();
        environment.set_fuel(Some(fuel));
        let context = context! {
            messages => conversation.messages().to_template(),
            tools => conversation.tools().map_or(Value::from(()), Json::to_template),
            documents => Value::from(()),
            add_generation_prompt => prompt == GenerationPrompt::With,
            ..Value::from_pairs(self.special_tokens.iter().cloned())
        };
        let template = environment.get_template(NAME);
        template.and_then(|template| template.render(context)).map_err(|error| describe(&error))
    }
}

impl Compiled {
    fn environment(&self) -> Result<&Environment<'static>, &String> {
        self.environment.get_or_init(|| compile(&self.source)).as_ref()
    }
}

fn compile(source: &[u8]) -> Result<Environment<'static>, String> {
    if source.len() > LONGEST {
        return Err(format!("it has {} bytes, but the limit is {LONGEST}", source.len()));
    }
    on_large_stack(BASE_FUEL, || parse(source))
}

fn parse(source: &[u8]) -> Result<Environment<'static>, String> {
    let source = str::from_utf8(source).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut environment = environment();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| error.to_string())?);
    add(&mut environment, rewrite::to_minijinja(source))?;
    Ok(environment)
}

/// The engine with the functions, methods and formats of Python.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_unknown_method_callback(methods::call);
    functions::add_to(&mut environment);
    environment
}

/// Parses the one template of an engine.
fn add(environment: &mut Environment<'static>, source: String) -> Result<(), String> {
    environment.add_template_owned(NAME, source).map_err(|error| describe(&error))
}

/// Runs a template on a stack that its fuel cannot exhaust. The engine is not known to panic, but a
/// template must never crash the program.
fn on_large_stack<T: Send>(
    fuel: u64,
    run: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    thread::scope(|scope| {
        let stack = (fuel * STACK_PER_FUEL) as usize;
        let run = || catch_panic(run).unwrap_or_else(Err);
        let thread = thread::Builder::new().stack_size(stack).spawn_scoped(scope, run);
        let thread = thread.map_err(|error| {
            format!(
                "cannot start a thread with a stack of {} MiB: {error}\nhint: free memory, or \
                 raise the limits of the system (ulimit -v, ulimit -u)",
                stack >> 20
            )
        })?;
        thread.join().unwrap_or_else(|_| Err("the template engine panicked".to_owned()))
    })
}

/// The message of the engine, with the line in the template.
fn describe(error: &Error) -> String {
    let mut text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if let Some(line) = error.line() {
        text = format!("line {line}: {text}");
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{text}: {source}"),
        None => text,
    }
}
