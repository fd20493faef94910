//! Damaged and absurd inputs for every reader of the program: each is read or refused, without a
//! panic, an abort, a signal, a hang, or memory that the input does not justify.
//!
//! `cargo test` tries a few thousand. `SSA_TEST_MUTATIONS=100000` tries that many, and
//! `SSA_TEST_SEED` others; `tests/README.md` has the results of long runs. Readers run in a process
//! of their own, so that one that ends it is found and the rest goes on.
//!
//! A reader is a function of a directory and of the damaged file in it (`reading.rs`), or a command
//! (`commands.rs`). A target of cargo-fuzz can call the former as they are: write the input over
//! the file in a copy of `Healthy`, and call `Reader::read`.

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
    let readers = readers::all();
    for reader in &readers {
        let begin = Instant::now();
        let count = (inputs - inputs / COMMANDS).div_ceil(readers.len());
        let report = worker::run(&healthy, reader, seed, count);
        println!(
            "{}: {} inputs, {} refused, at most {} MiB and {} ms, {:.1} s",
            reader.name,
            report.inputs,
            report.refused,
            report.mebibytes,
            report.milliseconds,
            begin.elapsed().as_secs_f64()
        );
        failures.extend(report.failures);
    }
    let commands = commands::all();
    for command in &commands {
        let begin = Instant::now();
        let count = (inputs / COMMANDS).div_ceil(commands.len());
        let refused = commands::run(&healthy, command, seed, count, &mut failures);
        let seconds = begin.elapsed().as_secs_f64();
        println!("`{}`: {count} inputs, {refused} refused, {seconds:.1} s", command.name);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The process that [`worker::run`] starts; nothing in a usual run of the tests.
#[test]
fn worker_process() {
    worker::serve(&readers::all());
}
