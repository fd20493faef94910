//! Every input of the corpus is read or refused, and so are random changes of it.
//!
//! `SSA_FUZZ_INPUTS=1000000` tries that many changes for each target, `SSA_FUZZ_SEED=1` others, and
//! `SSA_FUZZ_TARGET=config` those of one target. Unlike cargo-fuzz this needs no other toolchain,
//! but does not look at which code an input reaches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[path = "../../crates/ssa-cli/tests/mutations/mutate.rs"]
mod mutate;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Mutator;
use ssa_fuzz::{ALL, Place, Target};

/// Changes that `cargo test` tries for each target.
const INPUTS: usize = 500;
/// The slowest input: a template may use up its fuel.
const LONGEST: Duration = Duration::from_secs(20);

fn number(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The contents of the corpus of a target, sorted by name.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpus_and_its_changes_are_read_or_refused() {
    let (inputs, seed) = (number("SSA_FUZZ_INPUTS", INPUTS), number("SSA_FUZZ_SEED", 0));
    let only = env::var("SSA_FUZZ_TARGET").unwrap_or_default();
    for target in ALL.into_iter().filter(|target| target.name.contains(&only)) {
        let (place, corpus) = (Place::new(target), corpus(target));
        assert!(corpus.len() > 4, "{}: {} inputs", target.name, corpus.len());
        let mut refused = corpus.iter().filter(|bytes| place.read(bytes).is_err()).count();
        assert!(refused < corpus.len(), "{}: nothing is read", target.name);
        let begin = Instant::now();
        let mut longest = Duration::ZERO;
        for number in 0..inputs {
            let mut mutator = Mutator::new(((seed as u64) << 32) + number as u64);
            let healthy = &corpus[mutator.below(corpus.len())];
            let bytes = mutator.mutate(healthy);
            let begin = Instant::now();
            let read = catch_unwind(AssertUnwindSafe(|| place.read(&bytes)));
            longest = longest.max(begin.elapsed());
            refused += usize::from(matches!(read, Ok(Err(_))));
            if read.is_err() || longest > LONGEST {
                let kept = env::temp_dir().join(format!("ssa-fuzz-{}-{number}", target.name));
                fs::write(&kept, &bytes).unwrap();
                panic!("{}: {read:?} after {longest:?}", kept.display());
            }
        }
        println!(
            "{}: {} inputs, {refused} refused, at most {} ms, {:.1} s",
            target.name,
            corpus.len() + inputs,
            longest.as_millis(),
            begin.elapsed().as_secs_f64()
        );
    }
}
