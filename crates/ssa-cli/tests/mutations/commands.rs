//! Damaged files and absurd values for the program itself.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common;
use crate::healthy::{Healthy, copy_tree};
use crate::limits::{ADDRESS_SPACE, LONGEST, peak_mebibytes};
use crate::mutate::Mutator;
use crate::worker::Report;

/// How often a command is asked whether it has ended.
const POLL: Duration = Duration::from_millis(4);

/// The standard input of the commands in a folder that has it.
pub(crate) const STDIN: &str = "stdin";
/// Memory that a command may take: what a tokenizer of 2^24 ids does.
const MEBIBYTES: u64 = 1200;

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

const CHAT_MODEL: &[&str] =
    &["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
const PLAIN_MODEL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "model-00001-of-00003.safetensors",
];
const STDIN_ONLY: &[&str] = &[STDIN];

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
        damaged("generate hi --model r --max-tokens 2 --budget mass=VALUE,1..VALUE", "run", &[]),
        damaged("generate hi --model . --max-tokens 4 --threads 1", "chat-model", CHAT_MODEL),
        damaged("chat --model . --max-tokens 4 --threads 1", "chat-model", CHAT_MODEL),
        damaged(
            "chat --model . --max-tokens 4 --threads 1 --system be-brief",
            "chat-model",
            STDIN_ONLY,
        ),
        damaged("export --model . --to o --as ssa", "chat-model", CHAT_MODEL),
        damaged("export --model . --to o --as llama", "plain", PLAIN_MODEL),
        damaged("convert --from . --to o", "plain", PLAIN_MODEL),
        damaged("convert --from . --to o --block-size VALUE --block-counts VALUE", "plain", &[]),
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

/// Tries inputs and adds what goes wrong to the failures of the report.
pub(crate) fn run(healthy: &Healthy, command: &Damaged, seed: usize, count: usize) -> Report {
    let whole = healthy.path().join(command.files);
    let mut report = Report { inputs: count, ..Report::default() };
    let fresh = || {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("files");
        copy_tree(&whole, &at);
        (directory, at)
    };
    if !command.damaged.is_empty() {
        // Without damage, the command succeeds.
        let (_directory, at) = fresh();
        assert_eq!(outcome(&at, command.name, &mut 0), Ok(0), "{}", command.name);
    }
    for number in 0..count {
        let (_directory, at) = fresh();
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
        let begin = Instant::now();
        let mut mebibytes = 0;
        let problem = match outcome(&at, &arguments, &mut mebibytes) {
            Ok(_) if mebibytes > MEBIBYTES => Some(format!("{mebibytes} MiB")),
            Ok(code) => {
                report.refused += usize::from(code != 0);
                None
            }
            Err(problem) => Some(problem),
        };
        let failure = problem.map(|problem| format!("`{arguments}`, input {number}: {problem}"));
        report.failures.extend(failure);
        report.mebibytes = report.mebibytes.max(mebibytes);
        report.milliseconds = report.milliseconds.max(begin.elapsed().as_millis() as u64);
    }
    report
}

/// The exit code, if it is a documented one and its message is there. `mebibytes` becomes what the
/// command was seen to take.
fn outcome(directory: &Path, arguments: &str, mebibytes: &mut u64) -> Result<i32, String> {
    let program = common::command(directory);
    let line = format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\" 2> ../errors");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).arg(program.get_program()).args(arguments.split(' '));
    shell.current_dir(directory).env("CUDA_VISIBLE_DEVICES", "").env("HF_HUB_OFFLINE", "1");
    let input = File::open(directory.join(STDIN)).map_or_else(|_| Stdio::null(), Stdio::from);
    let mut child = shell.stdin(input).stdout(Stdio::null()).spawn().unwrap();
    let mut waited = Duration::ZERO;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if waited < LONGEST => {
                *mebibytes = peak_mebibytes(child.id()).unwrap_or(*mebibytes);
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
