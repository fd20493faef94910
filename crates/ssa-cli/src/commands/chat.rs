//! `ssa chat`.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, Result};
use ssa_data::Conversation;
use ssa_infer::{
    CachedModel, FinishReason, GenerationEngine, InferError, SequenceId, StopStrings, generate,
};

use super::generation::{Generator, Settings, Summary, TextStream};
use crate::args::{ChatArgs, DeviceChoice};
use crate::display::{note, print, write_bytes};
use crate::exit::UsageError;
use crate::signals::AnswerInterrupt;

/// The line before and after a message of several lines.
const FENCE: &str = "\"\"\"";
const COMMANDS: &str = "/reset begins a new conversation, /quit ends the program";

pub(crate) fn run(args: &ChatArgs, device: DeviceChoice) -> Result<()> {
    let generator = Generator::load(&args.generation, device)?;
    generator.tokenizer.require_chat_template()?;
    let (mut engine, settings) = generator.into_largest_engine()?;
    let sequence = engine.add_sequence();
    let interrupt = AnswerInterrupt::catch()?;
    let mut chat = Chat { args, engine, settings, sequence, interrupt, conversation: start(args) };
    let terminal = io::stdin().is_terminal();
    if terminal {
        note(&format!("{COMMANDS}; Ctrl-C ends an answer"));
    }
    loop {
        if terminal {
            write_bytes(b"\n> ")?;
        }
        match read_message()? {
            None => break,
            Some(message) => match message.trim() {
                "" => {}
                "/quit" => break,
                "/reset" => {
                    chat.conversation = start(args);
                    note("new conversation");
                }
                command if command.starts_with('/') && !command.contains('\n') => {
                    note(&format!("unknown command {command}; {COMMANDS}"));
                }
                _ => chat.answer(&message)?,
            },
        }
    }
    Ok(())
}

/// A conversation without messages of the user.
fn start(args: &ChatArgs) -> Conversation {
    let mut conversation = Conversation::default();
    if let Some(system) = &args.system {
        conversation.push("system", system);
    }
    conversation
}

/// The next message of standard input; none at its end.
fn read_message() -> Result<Option<String>> {
    let mut input = io::stdin().lock();
    let mut line = || {
        let mut line = String::new();
        let read = input.read_line(&mut line).context("cannot read standard input")?;
        anyhow::Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    };
    match line()? {
        Some(first) if first.trim() == FENCE => {
            let mut lines = Vec::new();
            while let Some(next) = line()?.filter(|line| line.trim() != FENCE) {
                lines.push(next);
            }
            Ok(Some(lines.join("\n")))
        }
        first => Ok(first),
    }
}

/// A conversation and the cache that holds it.
struct Chat<'a> {
    args: &'a ChatArgs,
    engine: GenerationEngine,
    settings: Settings,
    sequence: SequenceId,
    interrupt: AnswerInterrupt,
    conversation: Conversation,
}

impl Chat<'_> {
    /// Adds a message and writes the answer to it.
    fn answer(&mut self, message: &str) -> Result<()> {
        let Self { args, engine, settings, sequence, .. } = self;
        self.conversation.push("user", message);
        let prompt = settings.tokenizer.render_prompt(&self.conversation)?;
        // The template writes the tokens at the beginning of a text itself.
        let prompt = settings.tokenizer.encode(prompt.as_bytes())?;
        let mut requests = match settings.request(*sequence, prompt, args.max_tokens) {
            Ok(request) => [request],
            Err(error) => {
                let too_long =
                    matches!(error.downcast_ref(), Some(InferError::PromptTooLong { .. }));
                self.conversation.pop();
                return if too_long { self.full(&error) } else { Err(error) };
            }
        };
        // What the cache has in common with the new text stays, at most all but its last token.
        let ids = requests[0].ids();
        let cached = engine.engine().tokens(*sequence);
        let common = cached.iter().zip(&ids[..ids.len() - 1]).take_while(|(a, b)| a == b).count();
        engine.truncate(*sequence, common)?;

        let stops = StopStrings::default();
        let mut stream = TextStream::new(&settings.tokenizer, stops, true, Some(&self.interrupt));
        self.interrupt.begin();
        let statistics = generate(engine, &mut requests, &settings.options, &mut stream);
        self.interrupt.end();
        let answer = stream.finish()?;
        print("")?;
        let summary = Summary::new(engine, settings, &requests[0], &statistics?);
        note(&summary.text());
        if requests[0].finished() == Some(FinishReason::Context) {
            note("the conversation fills the model's context; /reset begins a new one");
        }
        self.conversation.push("assistant", &answer);
        Ok(())
    }

    /// A message does not fit. On a terminal the user can shorten it; elsewhere it is an error.
    fn full(&self, error: &anyhow::Error) -> Result<()> {
        let message = format!("{error}\nhint: shorten the message, or begin anew with /reset");
        if io::stdin().is_terminal() {
            note(&message);
            return Ok(());
        }
        Err(UsageError(message).into())
    }
}
