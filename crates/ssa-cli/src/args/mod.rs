//! The command line: one file per group of verbs. clap checks every single flag here. The
//! documentation comments become the help, the man pages and the reference page.

mod about;
mod attentions;
mod bench;
mod check;
mod compare;
mod compute;
mod context_length;
mod convert;
mod data;
mod eval;
mod export;
mod forward;
mod generate;
mod grid;
mod hints;
#[cfg(test)]
mod reference;
mod train;

use std::fmt::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use ssa_names::Named;

pub(crate) use about::{CompletionsArgs, ConfigArgs, ManArgs};
pub(crate) use attentions::AttentionsArgs;
pub(crate) use bench::{
    BenchArgs, BenchAttentionArgs, BenchCommand, BenchDecodeArgs, BenchGemmArgs, BenchStepArgs,
    RecordArgs,
};
pub(crate) use check::{DoctorArgs, SelftestArgs};
pub(crate) use compare::CompareArgs;
pub(crate) use compute::{ComputeArgs, DeviceChoice, ThreadsArgs};
pub(crate) use context_length::ContextLengthArgs;
pub(crate) use convert::ConvertArgs;
pub(crate) use data::{
    DataArgs, DataCommand, InputArgs, InspectArgs, PrepareArgs, TrainTokenizerArgs,
};
pub(crate) use eval::{AnalyzeArgs, EvalArgs, EvalCommand, HeldOutArgs, PerplexityArgs, TasksArgs};
pub(crate) use export::{ExportArgs, ExportLayout};
pub(crate) use forward::ForwardArgs;
pub(crate) use generate::{ChatArgs, GenerateArgs, GenerationArgs, TruncateSide};
pub(crate) use hints::with_hint;
pub(crate) use train::TrainArgs;

use crate::exit;

/// Version of the program and the commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SSA_COMMIT"), ")");

/// The environment variables, with their meaning.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("SSA_CACHE_DIR", "cache directory for compiled GPU kernels; ~/.cache/ssa by default"),
    ("SSA_NCCL", "file of NCCL, for several GPUs; found by itself where pip or the system has it"),
    ("HF_HOME", "cache of the Hugging Face Hub"),
    ("HF_TOKEN", "token for private data and models on the Hugging Face Hub"),
    ("HF_HUB_OFFLINE", "if 1, data and models of the Hub come from the cache alone"),
    ("CUDA_VISIBLE_DEVICES", "GPUs that may be used"),
    ("NO_COLOR", "if set, progress has no colors"),
];

/// Train, evaluate and run language models with Sparse Sparse Attention.
///
/// One model runs with full attention and with sparse attention at any budget. A budget is written
/// BLOCK_SIZExBLOCK_COUNT: with 16x4 every query attends to 4 blocks of 16 tokens, its own
/// included.
///
/// Results go to standard output, progress and errors to standard error. Progress is redrawn on a
/// terminal and printed line by line elsewhere.
#[derive(Debug, Parser)]
#[command(name = "ssa", version = VERSION, max_term_width = 100, after_help = closing_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs, each described with its flags.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Train(TrainArgs),
    Compare(CompareArgs),
    #[command(alias = "evaluate")]
    Eval(Box<EvalArgs>),
    #[command(alias = "analyse")]
    Analyze(AnalyzeArgs),
    Generate(GenerateArgs),
    Chat(ChatArgs),
    Data(DataArgs),
    Convert(ConvertArgs),
    Export(ExportArgs),
    Config(ConfigArgs),
    Forward(ForwardArgs),
    Selftest(SelftestArgs),
    Bench(BenchArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// The end of the help: examples, environment and exit codes.
fn closing_help() -> String {
    let mut text = "\
Examples:
  ssa train configs/demo.toml
  ssa train --help

Environment:
"
    .to_owned();
    for (name, meaning) in ENVIRONMENT {
        writeln!(text, "  {name:<20}  {meaning}").ok();
    }
    text += "\nExit codes:\n";
    for (code, meaning) in exit::codes() {
        writeln!(text, "  {code}  {meaning}").ok();
    }
    text
}

/// Parses names of an enum. Help and completions list them, and the error for an unknown name
/// suggests the closest one.
fn named<T: Named + Send + Sync>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::ALL.iter().map(|value| value.name()))
        .try_map(|name| T::from_name(&name))
}

/// The largest count.
const LARGEST_COUNT: usize = 1 << 40;
/// The largest number of tokens per row.
const LONGEST_ROW: usize = 1 << 24;
/// The largest vocabulary of a model.
const LARGEST_VOCABULARY: usize = 1 << 24;

/// Parses a size from `minimum` to `maximum`.
fn parse_size(text: &str, minimum: usize, maximum: usize) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (minimum..=maximum).contains(size));
    size.ok_or_else(|| format!("expected an integer from {minimum} to {maximum}"))
}

fn parse_positive(text: &str) -> Result<usize, String> {
    parse_size(text, 1, LARGEST_COUNT)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, reference};

    /// All verbs that do something themselves, with their full names.
    fn verbs(name: &str, command: &clap::Command) -> Vec<(String, clap::Command)> {
        let inner =
            |command: &clap::Command| verbs(&format!("{name} {}", command.get_name()), command);
        let own = reference::does_something(command).then(|| (name.to_owned(), command.clone()));
        own.into_iter().chain(command.get_subcommands().flat_map(inner)).collect()
    }

    #[test]
    fn flags_do_not_collide() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples_that_work() {
        for (verb, command) in verbs("ssa", &Cli::command()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = help.replace("\\\n      ", "");
            let examples = reference::examples(&help);
            assert!(!examples.is_empty(), "{verb} has no example");
            for example in examples {
                // The `ssa` command between a pipe and a redirection.
                let start = example.find("ssa ").unwrap_or_else(|| panic!("{example}"));
                let end =
                    example[start..].find(" | ").into_iter().chain(example[start..].find(" > "));
                let command = &example[start..start + end.min().unwrap_or(example.len() - start)];
                assert!(command.starts_with(&verb), "{verb}: {example}");
                Cli::try_parse_from(command.split(' ').map(|word| word.trim_matches('\'')))
                    .unwrap_or_else(|error| panic!("{example}: {error}"));
            }
        }
    }

    #[test]
    fn flags_are_only_where_they_do_something() {
        for (verb, command) in verbs("ssa", &Cli::command()) {
            let has =
                |flag| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            let on_device = [
                "train", "compare", "eval", "analyze", "generate", "chat", "forward", "selftest",
                "bench",
            ];
            let on_device = on_device.iter().any(|name| verb.starts_with(&format!("ssa {name}")));
            let on_cpu = ["ssa data prepare", "ssa data train-tokenizer"].contains(&&*verb);
            assert_eq!(has("device"), on_device, "{verb}");
            assert_eq!(has("threads"), on_device || on_cpu, "{verb}");
        }
    }

    #[test]
    fn the_reference_page_has_every_verb_and_flag() {
        let page = reference::page();
        for (verb, command) in verbs("ssa", &Cli::command()) {
            let heading = format!("\n## `{verb}`\n");
            let section =
                page.split_once(&heading).and_then(|(_, rest)| rest.split("\n## ").next());
            let section = section.unwrap_or_else(|| panic!("no section on {verb}"));
            for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
                // `--shard-tokens` does not count as `--shard`.
                let ends = [" ", "`", ","].map(|end| format!("`--{flag}{end}"));
                let found = ends.iter().any(|text| section.contains(text));
                assert!(found || flag == "help", "--{flag} is missing in the section on {verb}");
            }
        }
    }

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
        if std::env::var_os("SSA_UPDATE_DOCS").is_some() {
            std::fs::write(path, reference::page()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == reference::page(),
            "docs/reference/cli.md is out of date\n\
             hint: run SSA_UPDATE_DOCS=1 cargo test --release -p ssa-cli"
        );
    }
}
