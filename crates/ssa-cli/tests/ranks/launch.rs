//! Ranks that a launcher starts, and numbers of ranks that cannot be.

use std::path::Path;

use crate::common::process::end;
use crate::common::{Run, ssa, workplace};
use crate::program::{Results, arguments, free_port, run, start_with};

/// Starts two ranks as torchrun does, each in its directory; `more` are further arguments of rank
/// 1.
fn launched(directories: [&Path; 2], name: &str, more: &[&str]) -> [Run; 2] {
    let port = free_port();
    let processes = [0, 1].map(|rank: usize| {
        let variables = [
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", "2".to_owned()),
            ("LOCAL_RANK", rank.to_string()),
            ("LOCAL_WORLD_SIZE", "2".to_owned()),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", port.to_string()),
        ];
        let mut arguments = arguments(name, 6, 2);
        if rank == 1 {
            arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        }
        start_with(directories[rank], &arguments, &variables)
    });
    processes.map(end)
}

#[test]
fn ranks_of_a_launcher_meet() {
    let directory = workplace();
    let both = [directory.path(); 2];
    let [leader, other] = launched(both, "launched", &[]).map(Run::succeeds);
    let line = "ranks: 2 (RANK=0 WORLD_SIZE=2), rank 0 at 127.0.0.1:";
    assert!(leader.stderr.contains(line), "{}", leader.stderr);
    assert_eq!(other.stderr, "");
    run(directory.path(), &arguments("alone", 6, 1)).succeeds();
    let results = |name: &str| Results::of(&directory.path().join(name), 6);
    results("launched").must_equal(&results("alone"));
}

#[test]
fn ranks_with_different_settings_or_text_all_end() {
    let [directory, other] = [workplace(), workplace()];
    let both = [directory.path(); 2];
    for run in launched(both, "run", &["--set", "optimizer.learning_rate=0.5"]) {
        run.fails(
            2,
            &["the configuration differs: rank 0 has ", ", rank 1 on ", "hint: start all"],
        );
    }
    std::fs::write(other.path().join("text/00.txt"), "another text").unwrap();
    for run in launched([directory.path(), other.path()], "run", &[]) {
        run.fails(2, &["the training text differs: rank 0 has ", "hint: give all ranks the same"]);
    }
    assert!(!directory.path().join("run").exists());
}

#[test]
fn an_error_of_rank_0_reaches_all() {
    let directory = workplace();
    std::fs::create_dir(directory.path().join("run")).unwrap();
    std::fs::write(directory.path().join("run/mine.txt"), "not a run").unwrap();
    let [leader, other] = launched([directory.path(); 2], "run", &[]);
    let problem = "run is not a run directory";
    leader.fails(2, &[&format!("error: {problem}")]);
    other.fails(2, &["rank 1: error: rank 0 on ", " failed before the first step ", problem]);
}

#[test]
fn numbers_of_ranks_that_cannot_be_are_refused() {
    let directory = workplace();
    let refused = |arguments: &[&str], parts: &[&str]| {
        ssa(directory.path(), [&["train", "tiny.toml"], arguments].concat()).fails(2, parts);
    };
    let groups = ["--set", "training.groups=2"];
    refused(
        &["--ranks", "2"],
        &["2 ranks: training.groups is 1", "set training.groups=2 or a larger"],
    );
    refused(&[&groups[..], &["--ranks", "3"]].concat(), &["hint: start 1 or 2 ranks"]);
    refused(&["--ranks", "0"], &["expected an integer from 1 to 4096"]);
    refused(&["--set", "training.groups=3"], &["`training.groups` is 3", "a power of two"]);
    refused(
        &["--set", "training.groups=4"],
        &["`training.groups` is 4, expected a divisor of training.batch_size (2)"],
    );
    refused(
        &[&groups[..], &["--set", "training.micro_batch_size=2"]].concat(),
        &["`training.groups` is 2, expected a divisor of the 1 micro-batches"],
    );
    let gpu = [&groups[..], &["--ranks", "2", "--device", "cuda"]].concat();
    refused(&gpu, &["2 ranks on this host (--ranks), but the driver reports 0 GPUs"]);
    let tiny = ["train", "tiny.toml", "--set", "training.groups=8"];
    let tiny =
        [&tiny[..], &["--set", "training.batch_size=8", "--gpus", "8", "--dry-run"]].concat();
    let tiny = [&tiny[..], &["--set", "training.micro_batch_size=1"]].concat();
    let ended = ssa(directory.path(), tiny).succeeds();
    for part in ["memory of each of 8 ranks", "micro_batch_size, 80 GB", "on each of 8 GPUs"] {
        assert!(ended.stdout.contains(part), "{}", ended.stdout);
    }
    let dry = [&groups[..], &["--ranks", "2", "--dry-run"]].concat();
    let ended = ssa(directory.path(), [&["train", "tiny.toml"], &dry[..]].concat()).succeeds();
    assert!(ended.stdout.contains("memory of each of 2 ranks, 2 groups"), "{}", ended.stdout);
    assert!(ended.stdout.contains("pieces of other ranks"), "{}", ended.stdout);
}
