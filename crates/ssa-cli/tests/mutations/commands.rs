//! Damaged files and absurd values for the program itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common;
use crate::healthy::{Healthy, copy_tree};
use crate::limits::{ADDRESS_SPACE, LONGEST};
use crate::mutate::Mutator;

/// How often a command is asked whether it has ended.
const POLL: Duration = Duration::from_millis(4);

/// Arguments, separated by spaces, and what is damaged for them.
pub(crate) struct Damaged {
    pub(crate) name: &'static str,
    /// Folder of the healthy inputs, in which the program runs.
    files: &'static str,
    /// Files in it, of which one is damaged; without any, a value takes the place of each `VALUE`.
    damaged: &'static [&'static str],
}

const fn damaged(
    name: &'static str,
    files: &'static str,
    damaged: &'static [&'static str],
) -> Damaged {
    Damaged { name, files, damaged }
}

pub(crate) fn all() -> Vec<Damaged> {
    vec![
        damaged(
            "train --threads 1 --resume r",
            "run",
            &["r/metrics.jsonl", "r/journal.jsonl", "r/best/best.json", "r/config.toml"],
        ),
        damaged(
            "forward --model model --input in.safetensors --attention full --output o --threads 1",
            "forward",
            &["in.safetensors", "model/config.json", "model/model.safetensors"],
        ),
        damaged(
            "eval perplexity --model r/checkpoint --threads 1 --budget 8x1",
            "run",
            &["r/checkpoint/config.json", "r/config.toml", "r/checkpoint/model.safetensors"],
        ),
        damaged(
            "generate hi --model r --max-tokens 4 --threads 1",
            "run",
            &["r/checkpoint/config.json", "r/checkpoint/model.safetensors"],
        ),
        damaged(
            "generate hi --model r --max-tokens 4 --temperature VALUE --top-p VALUE",
            "run",
            &[],
        ),
        damaged("generate hi --model r --max-tokens 2 --budget mass=VALUE", "run", &[]),
        damaged("export --model model --to o --as ssa", "forward", &["model/config.json"]),
        damaged("convert --from model --to o", "forward", &["model/config.json"]),
        damaged("data inspect .", "corpus", &["manifest.json", "00000.idx", "00001.bin"]),
        damaged("data prepare b.jsonl c.json a.txt --output o", "texts", &["b.jsonl", "c.json"]),
        damaged("train tiny.toml --dry-run --set VALUE=VALUE", "run", &[]),
        damaged("train tiny.toml --dry-run --set training.batch_size=VALUE", "run", &[]),
        damaged("train tiny.toml --dry-run --set model.hidden_size=VALUE", "run", &[]),
        damaged("train tiny.toml --dry-run --set data.sequence_length=VALUE", "run", &[]),
        damaged("train tiny.toml --dry-run --set evaluation.budgets=VALUExVALUE", "run", &[]),
        damaged("train tiny.toml --dry-run --threads VALUE", "run", &[]),
        damaged("eval perplexity --model r --budget VALUExVALUE --threads VALUE", "run", &[]),
        damaged("data prepare text --output o --part VALUE/VALUE", "run", &[]),
        damaged("data prepare text --output o --max-document-bytes VALUE", "run", &[]),
        damaged("data prepare text --output o --shard-tokens VALUE --threads 1", "run", &[]),
        damaged("data inspect . --rows VALUE --sequence-length VALUE", "corpus", &[]),
        damaged("bench attention --budget VALUExVALUE --tokens 64 --heads 2/VALUE", "run", &[]),
        damaged("VALUE VALUE --VALUE", "run", &[]),
    ]
}

/// Tries inputs and adds what goes wrong to `failures`; returns how many were refused.
pub(crate) fn run(
    healthy: &Healthy,
    command: &Damaged,
    seed: usize,
    count: usize,
    failures: &mut Vec<String>,
) -> usize {
    let whole = healthy.path().join(command.files);
    let mut refused = 0;
    for number in 0..count {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("files");
        copy_tree(&whole, &at);
        let mut mutator = Mutator::new(((seed as u64) << 32) + number as u64);
        let mut arguments = command.name.to_owned();
        if command.damaged.is_empty() {
            while arguments.contains("VALUE") {
                arguments = arguments.replacen("VALUE", mutator.value(), 1);
            }
        } else {
            let file = command.damaged[mutator.below(command.damaged.len())];
            let bytes = mutator.mutate(&fs::read(at.join(file)).unwrap());
            fs::write(at.join(file), bytes).unwrap();
        }
        match outcome(&at, &arguments) {
            Ok(code) => refused += usize::from(code != 0),
            Err(problem) => failures.push(format!("`{arguments}`, input {number}: {problem}")),
        }
    }
    refused
}

/// The exit code, if it is a documented one and its message is there.
fn outcome(directory: &Path, arguments: &str) -> Result<i32, String> {
    let program = common::command(directory);
    let line = format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\" 2> ../errors");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).arg(program.get_program()).args(arguments.split(' '));
    shell.current_dir(directory).env("CUDA_VISIBLE_DEVICES", "").env("HF_HUB_OFFLINE", "1");
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut waited = Duration::ZERO;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if waited < LONGEST => {
                sleep(POLL);
                waited += POLL;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                return Err(format!("more than {} s", LONGEST.as_secs()));
            }
        }
    };
    let errors = fs::read(directory.join("../errors")).unwrap();
    let errors = String::from_utf8_lossy(&errors);
    match status.code() {
        Some(0) => Ok(0),
        Some(code @ 2..=4) if errors.contains("error: ") && !errors.contains("anicked") => Ok(code),
        _ => Err(format!("{status}: {errors}")),
    }
}
