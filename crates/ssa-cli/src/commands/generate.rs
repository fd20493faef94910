//! `ssa generate`.

use std::io::{self, IsTerminal, Read};
use std::ops::Range;

use anyhow::{Context, Result};
use serde::Serialize;
use ssa_infer::{StopStrings, generate};

use super::command_line;
use super::generation::{Generator, Summary, TextStream};
use crate::args::{DeviceChoice, GenerateArgs, TruncateSide};
use crate::display::{note, print, print_json};
use crate::exit::{FileError, UsageError};

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    model: String,
    device: String,
    command: String,
    attention: String,
    budget: Option<String>,
    seed: u64,
    text: &'a str,
    /// Tokens of the text, with the one that ended it.
    ids: &'a [u32],
    #[serde(flatten)]
    summary: &'a Summary,
}

pub(crate) fn run(args: &GenerateArgs, device: DeviceChoice) -> Result<()> {
    let prompt = read_prompt(args)?;
    let stops = StopStrings::new(args.stops.clone())?;
    let generator = Generator::load(&args.generation, device)?;
    let device = generator.device().to_string();
    let mut prompt = generator.encode_prompt(&prompt)?;
    let dropped = excess(args, prompt.len(), generator.context_length())?;
    if !dropped.is_empty() {
        note(&format!(
            "warning: the first {} of {} tokens of the prompt are dropped",
            dropped.len(),
            prompt.len()
        ));
        prompt.drain(dropped);
    }
    let tokens = prompt.len().saturating_add(args.max_tokens);
    let (mut engine, settings) = generator.into_engine(tokens)?;
    let sequence = engine.add_sequence();
    let mut requests = [settings.request(sequence, prompt, args.max_tokens)?];
    let mut stream = TextStream::new(&settings.tokenizer, stops, !args.json, None);
    let statistics = generate(&mut engine, &mut requests, &settings.options, &mut stream)?;
    let text = stream.finish()?;
    let [request] = requests;
    let summary = Summary::new(&engine, &settings, &request, &statistics);
    if args.json {
        let attention = settings.attention;
        let sparse = attention.is_sparse(settings.options.drafts);
        return print_json(&Output {
            model: args.generation.model.display().to_string(),
            device,
            command: command_line(),
            attention: attention.target.mode.to_string(),
            budget: sparse.then(|| attention.budget.to_string()),
            seed: args.generation.seed,
            text: &text,
            ids: request.generated(),
            summary: &summary,
        });
    }
    if io::stdout().is_terminal() {
        print("")?;
    }
    note(&summary.text());
    Ok(())
}

/// The prompt: the argument, the file, or standard input.
fn read_prompt(args: &GenerateArgs) -> Result<Vec<u8>> {
    if let Some(prompt) = &args.prompt {
        return Ok(prompt.clone().into_bytes());
    }
    let mut text = match &args.file {
        Some(path) => ssa_files::read(path).map_err(|error| {
            let path = path.display();
            FileError(format!("--file {path}: cannot be read: {error}\nhint: check the path"))
        })?,
        None if io::stdin().is_terminal() => {
            let message = "there is no prompt\nhint: pass one as an argument, with --file, or on \
                           standard input";
            return Err(UsageError(message.to_owned()).into());
        }
        None => {
            let mut text = Vec::new();
            io::stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
            text
        }
    };
    text.pop_if(|byte| *byte == b'\n');
    Ok(text)
}

/// The tokens of a prompt to drop so that it fits, together with the text.
fn excess(args: &GenerateArgs, prompt: usize, context: usize) -> Result<Range<usize>> {
    match args.truncate {
        None if prompt >= context => Err(UsageError(format!(
            "the prompt has {prompt} tokens, and the model's context of {context} leaves no room \
             for more\nhint: shorten it, or pass --truncate left to drop its beginning"
        ))
        .into()),
        None => Ok(0..0),
        Some(TruncateSide::Left) if args.max_tokens >= context => Err(UsageError(format!(
            "--max-tokens {} leaves no room for a prompt in the model's context of {context}\n\
             hint: pass a smaller --max-tokens",
            args.max_tokens
        ))
        .into()),
        Some(TruncateSide::Left) => Ok(0..prompt.saturating_sub(context - args.max_tokens)),
    }
}
