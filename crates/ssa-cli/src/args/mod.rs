//! The command line: one file per verb. What only one flag decides is checked here, by clap.

mod analyze;
mod bench;
mod data;
mod device;
mod doctor;
mod eval;
mod forward;
mod held_out;
mod hints;
mod selftest;
mod train;

use clap::{Parser, Subcommand};

pub(crate) use analyze::AnalyzeArgs;
pub(crate) use bench::{
    BenchArgs, BenchAttentionArgs, BenchCommand, BenchGemmArgs, BenchStepArgs, RecordArgs,
};
pub(crate) use data::{
    DataArgs, DataCommand, InputArgs, InspectArgs, PrepareArgs, TrainTokenizerArgs,
};
pub(crate) use device::DeviceChoice;
pub(crate) use doctor::DoctorArgs;
pub(crate) use eval::{EvalArgs, EvalCommand, PerplexityArgs};
pub(crate) use forward::ForwardArgs;
pub(crate) use held_out::HeldOutArgs;
pub(crate) use hints::with_hint;
pub(crate) use selftest::SelftestArgs;
pub(crate) use train::TrainArgs;

/// Version of the program and the commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SSA_COMMIT"), ")");

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 other failure, 2 wrong flags or configuration, 3 unusable data (files, checkpoints, input or \
output), 4 a loss that is not finite, 5 interrupted by a signal with everything saved.";

/// Train and evaluate language models with Sparse Sparse Attention: one model that runs on full
/// attention and on sparse attention at any budget.
#[derive(Debug, Parser)]
#[command(name = "ssa", version = VERSION, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Threads to compute with, at most 4096; all cores without it. Results do not depend on it.
    #[arg(long, global = true, display_order = 100, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,
    /// Where to compute: auto (the first GPU if there is one), cpu, cuda or cuda:N.
    #[arg(long, global = true, display_order = 100, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs; each is described where its flags are.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Data(DataArgs),
    Train(TrainArgs),
    #[command(alias = "evaluate")]
    Eval(EvalArgs),
    #[command(alias = "analyse")]
    Analyze(AnalyzeArgs),
    Forward(ForwardArgs),
    Selftest(SelftestArgs),
    Bench(BenchArgs),
    Doctor(DoctorArgs),
}

/// The largest number of anything that is only counted.
const LARGEST_COUNT: usize = 1 << 40;
/// The largest number of tokens of a row.
const LONGEST_ROW: usize = 1 << 24;
/// The largest vocabulary, as of a model.
const LARGEST_VOCABULARY: usize = 1 << 24;
/// The largest number of threads.
const MOST_THREADS: usize = 1 << 12;

/// A size from `minimum` to `maximum`.
fn parse_size(text: &str, minimum: usize, maximum: usize) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (minimum..=maximum).contains(size));
    size.ok_or_else(|| {
        format!("expected a whole number of at least {minimum} and at most {maximum}")
    })
}

fn parse_positive(text: &str) -> Result<usize, String> {
    parse_size(text, 1, LARGEST_COUNT)
}

fn parse_tokens(text: &str) -> Result<usize, String> {
    parse_size(text, 1, LONGEST_ROW)
}

fn parse_threads(text: &str) -> Result<usize, String> {
    parse_size(text, 1, MOST_THREADS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    const REFERENCE: &str = include_str!("../../../../docs/reference/cli.md");

    /// Every flag of a verb and of the verbs below it, with the name of the verb.
    fn flags(verb: &str, command: &clap::Command) -> Vec<(String, String)> {
        let own = command.get_arguments().filter_map(|argument| argument.get_long());
        let own = own.filter(|flag| !["help", "version"].contains(flag));
        let mut all: Vec<_> = own.map(|flag| (verb.to_owned(), format!("--{flag}"))).collect();
        for inner in command.get_subcommands() {
            all.extend(flags(&format!("{verb} {}", inner.get_name()), inner));
        }
        all
    }

    #[test]
    fn flags_do_not_collide() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_page_has_every_verb_and_flag() {
        for (verb, flag) in flags("ssa", &Cli::command()) {
            let heading =
                if verb == "ssa" { "## Everywhere".to_owned() } else { format!("## `{verb}`\n") };
            let section =
                REFERENCE.split_once(&heading).map(|(_, rest)| rest.split("\n## ").next());
            let section = section.flatten().unwrap_or_else(|| panic!("no section on {verb}"));
            assert!(section.contains(&flag), "{flag} is missing in the section on {verb}");
        }
    }
}
