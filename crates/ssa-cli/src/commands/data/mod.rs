//! `ssa data`.

mod inspect;

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use ssa_data::{
    PrepareOptions, Prepared, Tokenizer, TrainTokenizerOptions, documents, find_sources,
    load_tokenizer, prepare as prepare_corpus, train_tokenizer as train,
};
use ssa_report::number::{counted, duration};

use super::start_threads;
use crate::args::{DataCommand, InputArgs, PrepareArgs, TrainTokenizerArgs};
use crate::display::{AmountProgress, Display, print, print_json};

pub(crate) fn run(command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::Prepare(args) => prepare(args),
        DataCommand::TrainTokenizer(args) => train_tokenizer(args),
        DataCommand::Inspect(args) => inspect::run(args),
    }
}

/// The output of `ssa data prepare --json`.
#[derive(Serialize)]
struct PrepareOutput {
    output: PathBuf,
    shards: usize,
    resumed_shards: usize,
    documents: u64,
    empty_documents: u64,
    tokens: u64,
    text_bytes: u64,
    skipped_files: Vec<PathBuf>,
    seconds: f64,
}

fn prepare(args: &PrepareArgs) -> Result<()> {
    start_threads(&args.threads)?;
    let tokenizer = load_tokenizer(&args.tokenizer, args.eos_token.as_deref())?;
    let options = PrepareOptions {
        input: args.input.options(),
        output: args.output.clone(),
        shard_tokens: args.shard_tokens,
        part: args.part,
        threads: args
            .threads
            .threads
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get)),
    };
    let start = Instant::now();
    let mut bar = AmountProgress::new(Display::choose(false), "preparing");
    let prepared = prepare_corpus(&args.input.inputs, &tokenizer, &options, &mut |progress| {
        let counts = || vec![counted(progress.tokens, "token"), counted(progress.shards, "shard")];
        bar.set(progress.resumed_bytes, progress.bytes, progress.total_bytes, counts);
    });
    bar.finish();
    let Prepared { manifest, shards_before, skipped } = prepared?;
    let output = PrepareOutput {
        output: args.output.clone(),
        shards: manifest.shards.len(),
        resumed_shards: shards_before,
        documents: manifest.documents(),
        empty_documents: manifest.sources.iter().map(|source| source.empty_documents).sum(),
        tokens: manifest.tokens(),
        text_bytes: manifest.text_bytes(),
        skipped_files: skipped,
        seconds: start.elapsed().as_secs_f64(),
    };
    if args.json { print_json(&output) } else { summarize(&output) }
}

fn summarize(output: &PrepareOutput) -> Result<()> {
    print(&format!(
        "{}, {} of text, {}, {} in {}",
        counted(output.documents, "document"),
        counted(output.text_bytes, "byte"),
        counted(output.tokens, "token"),
        counted(output.shards, "shard"),
        output.output.display()
    ))?;
    if output.resumed_shards > 0 {
        print(&format!("{} already complete", counted(output.resumed_shards, "shard")))?;
    }
    if output.empty_documents > 0 {
        print(&format!("{} without text skipped", counted(output.empty_documents, "document")))?;
    }
    if let Some(first) = output.skipped_files.first() {
        print(&format!(
            "{} of unsupported kinds skipped, such as {}",
            counted(output.skipped_files.len(), "file"),
            first.display()
        ))?;
    }
    print(&duration(output.seconds))
}

fn train_tokenizer(args: &TrainTokenizerArgs) -> Result<()> {
    start_threads(&args.threads)?;
    let InputArgs { inputs, .. } = &args.input;
    let input = args.input.options();
    let sources = find_sources(inputs, &input)?;
    let options =
        TrainTokenizerOptions { vocab_size: args.vocab_size, min_frequency: args.min_frequency };
    let start = Instant::now();
    let mut bar = AmountProgress::new(Display::choose(false), "reading");
    let vocab_size =
        train(documents(&sources, &input, &Tokenizer::Bytes), &args.output, &options, |bytes| {
            bar.set(0, bytes, 0, || vec![format!("{} of text", counted(bytes, "byte"))]);
        });
    bar.finish();
    let (vocab_size, seconds) = (vocab_size?, start.elapsed().as_secs_f64());
    if vocab_size < args.vocab_size {
        let asked = args.vocab_size;
        print(&format!(
            "the text has pairs for only {vocab_size} of the {asked} requested tokens"
        ))?;
    }
    print(&format!(
        "{} in {}, {}",
        counted(vocab_size, "token"),
        args.output.display(),
        duration(seconds)
    ))
}
