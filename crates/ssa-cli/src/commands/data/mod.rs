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

use crate::args::{DataCommand, InputArgs, PrepareArgs, TrainTokenizerArgs};
use crate::display::{AmountProgress, Display, amount, print, print_json};

pub(crate) fn run(command: &DataCommand, threads: Option<usize>) -> Result<()> {
    match command {
        DataCommand::Prepare(args) => prepare(args, threads),
        DataCommand::TrainTokenizer(args) => train_tokenizer(args),
        DataCommand::Inspect(args) => inspect::run(args),
    }
}

/// What `ssa data prepare --json` prints.
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

fn prepare(args: &PrepareArgs, threads: Option<usize>) -> Result<()> {
    let tokenizer = load_tokenizer(&args.tokenizer, args.eos_token.as_deref())?;
    let options = PrepareOptions {
        input: args.input.options(),
        output: args.output.clone(),
        shard_tokens: args.shard_tokens,
        part: args.part,
        threads: threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get)),
    };
    let start = Instant::now();
    let mut bar = AmountProgress::new(Display::choose(false), "preparing");
    let prepared = prepare_corpus(&args.input.inputs, &tokenizer, &options, &mut |progress| {
        let message = || format!("{} tokens, {} shards", amount(progress.tokens), progress.shards);
        bar.set(progress.resumed_bytes, progress.bytes, progress.total_bytes, message);
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
    if args.json { print_json(&output) } else { summarise(&output) }
}

fn summarise(output: &PrepareOutput) -> Result<()> {
    let PrepareOutput { documents, tokens, text_bytes, shards, resumed_shards, seconds, .. } =
        output;
    print(&format!(
        "{documents} documents, {} bytes of text, {} tokens, {shards} shards in {}",
        amount(*text_bytes),
        amount(*tokens),
        output.output.display()
    ))?;
    if *resumed_shards > 0 {
        print(&format!("{resumed_shards} shards were there already"))?;
    }
    if output.empty_documents > 0 {
        print(&format!("{} documents without text were left out", output.empty_documents))?;
    }
    if let Some(first) = output.skipped_files.first() {
        let count = output.skipped_files.len();
        print(&format!("{count} files of other kinds were skipped, such as {}", first.display()))?;
    }
    print(&format!("{seconds:.1} s"))
}

fn train_tokenizer(args: &TrainTokenizerArgs) -> Result<()> {
    let InputArgs { inputs, .. } = &args.input;
    let input = args.input.options();
    let sources = find_sources(inputs, &input)?;
    let options =
        TrainTokenizerOptions { vocab_size: args.vocab_size, min_frequency: args.min_frequency };
    let start = Instant::now();
    let mut bar = AmountProgress::new(Display::choose(false), "reading");
    let vocab_size =
        train(documents(&sources, &input, &Tokenizer::Bytes), &args.output, &options, |bytes| {
            bar.set(0, bytes, 0, || format!("{} bytes of text", amount(bytes)));
        });
    bar.finish();
    let (vocab_size, seconds) = (vocab_size?, start.elapsed().as_secs_f64());
    if vocab_size < args.vocab_size {
        let asked = args.vocab_size;
        print(&format!("the text has pairs for {vocab_size} tokens only, of {asked} asked for"))?;
    }
    print(&format!("{vocab_size} tokens in {}, {seconds:.1} s", args.output.display()))
}
