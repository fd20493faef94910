//! Damaged and absurd inputs for every reader of the program: each is read or refused, without a
//! panic, an abort, a signal, a hang, or memory that the input does not justify.
//!
//! `cargo test` tries a few thousand. `SSA_TEST_MUTATIONS=100000` tries that many,
//! `SSA_TEST_SEED=1` others, and `SSA_TEST_READER=texts` only those of one reader or of commands
//! that contain the word; `tests/README.md` has the results of long runs. Readers run in a process
//! of their own, so that one that ends it is found and the rest goes on.
//!
//! A reader is a function of a directory and of the damaged file in it (`reading.rs`), or a command
//! (`commands.rs`). `fuzz/` has targets of cargo-fuzz for the readers of models and tokenizers.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod healthy;
mod limits;
mod mutate;
mod readers;
mod reading;
mod worker;

use std::env;
use std::time::Instant;

use healthy::Healthy;
use worker::Report;

/// Inputs that `cargo test` tries in all readers together.
const INPUTS: usize = 4000;
/// One of so many inputs is given to a command.
const COMMANDS: usize = 30;

fn number(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn damaged_inputs_are_read_or_refused() {
    let (inputs, seed) = (number("SSA_TEST_MUTATIONS", INPUTS), number("SSA_TEST_SEED", 0));
    let healthy = Healthy::new();
    let mut failures = Vec::new();
    let (readers, commands) = (readers::all(), commands::all());
    let only = env::var("SSA_TEST_READER").unwrap_or_default();
    let mut tell = |name: &str, begin: Instant, report: Report| {
        println!(
            "{name}: {} inputs, {} refused, at most {} MiB and {} ms, {:.1} s",
            report.inputs,
            report.refused,
            report.mebibytes,
            report.milliseconds,
            begin.elapsed().as_secs_f64()
        );
        failures.extend(report.failures);
    };
    for reader in readers.iter().filter(|reader| reader.name.contains(&only)) {
        let begin = Instant::now();
        let count = (inputs - inputs / COMMANDS).div_ceil(readers.len());
        tell(reader.name, begin, worker::run(&healthy, reader, seed, count));
    }
    for command in commands.iter().filter(|command| command.name.contains(&only)) {
        let begin = Instant::now();
        let count = (inputs / COMMANDS).div_ceil(commands.len());
        tell(command.name, begin, commands::run(&healthy, command, seed, count));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The process that [`worker::run`] starts; nothing in a usual run of the tests.
#[test]
fn worker_process() {
    worker::serve(&readers::all());
}
