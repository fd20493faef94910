//! Sizes beyond any memory, and non-finite weights: refused before the work, with the key to
//! change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Run, golden_case, ssa, workplace};

/// Runs the program under a limit on its address space, in KiB.
fn limited(directory: &Path, kib: u64, arguments: &[&str]) -> Run {
    let program = common::command(directory);
    let line = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).arg(program.get_program()).args(arguments).current_dir(directory);
    let output = shell.env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    Run {
        code: output.status.code().expect("no signal ends the program"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_size_above_its_bound_is_refused_with_its_key() {
    let directory = workplace();
    for (setting, bound) in [
        ("model.intermediate_size=4611686018427387904", "at most 1048576"),
        ("model.hidden_size=9223372036854775807", "at most 1048576"),
        ("model.vocab_size=4611686018427387904", "at most 16777216"),
        ("model.vocab_size=1000000000", "at most 16777216"),
        ("model.num_attention_heads=4611686018427387904", "at most 4096"),
        ("model.num_hidden_layers=1000000000", "at most 4096"),
        ("model.max_position_embeddings=9223372036854775807", "at most 2147483648"),
        ("training.batch_size=9223372036854775807", "at most 1048576"),
        ("training.steps=9223372036854775807", "at most 1099511627776"),
        ("data.sequence_length=9223372036854775807", "at most 16777216"),
        ("evaluation.tokens=9223372036854775807", "at most 1099511627776"),
        ("monitoring.probe_every=9223372036854775807", "at most 1099511627776"),
    ] {
        let key = setting.split('=').next().unwrap();
        for dry_run in [&[][..], &["--dry-run"]] {
            let all = ["train", "tiny.toml", "--run-dir", "out", "--set", setting];
            ssa(directory.path(), all.iter().chain(dry_run)).fails(2, &[key, bound]);
        }
    }
    assert!(!directory.path().join("out").exists());
    for (arguments, part) in [
        (&["selftest", "--threads", "4294967296"][..], "from 1 to 1024"),
        (&["bench", "attention", "--tokens", "4294967296"], "from 1 to 16777216"),
        (&["bench", "attention", "--budget", "16x99999999999"], "16x99999999999"),
        (&["bench", "attention", "--heads", "18446744073709551615/1"], "at most 4096"),
        (&["bench", "attention", "--head-dim", "99999999"], "from 1 to 4096"),
    ] {
        ssa(directory.path(), arguments).fails(2, &[part]);
    }
    let huge = ["bench", "attention", "--tokens", "16777216", "--heads", "4096/4096"];
    ssa(directory.path(), huge).fails(2, &["the longest row needs", "pass smaller --tokens"]);
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_anything_is_written() {
    let directory = workplace();
    let train = ["train", "tiny.toml", "--run-dir", "out", "--threads", "1"];
    let large = ["--set", "model.intermediate_size=1048576", "--set", "model.hidden_size=65536"];
    let parts = ["a step with micro-batches of 2 rows needs", "are free", "intermediate_size"];
    ssa(directory.path(), train.iter().chain(&large)).fails(2, &parts);
    let rows = ["--set", "training.batch_size=1048576", "--set", "data.sequence_length=100000"];
    let parts = ["reading the batches of a step needs", "training.batch_size"];
    ssa(directory.path(), train.iter().chain(&rows)).fails(2, &parts);
    assert!(!directory.path().join("out").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn the_limit_of_the_shell_counts() {
    let directory = workplace();
    let train = ["train", "tiny.toml", "--run-dir", "out", "--threads", "1", "--no-eval"];
    let wide = ["--set", "model.intermediate_size=524288"];
    let arguments = [&train[..], &wide].concat();
    limited(directory.path(), 3_000_000, &arguments).fails(2, &["needs", "are free"]);
    assert!(!directory.path().join("out").exists());
    limited(directory.path(), 3_000_000, &train).succeeds();
}

/// Whatever the limit, a command succeeds or ends with an error; no failed allocation aborts it.
#[cfg(target_os = "linux")]
#[test]
fn a_lack_of_memory_is_an_error_wherever_it_shows() {
    let directory = workplace();
    let train = ["train", "tiny.toml", "--run-dir", "model", "--no-eval"];
    ssa(directory.path(), train).succeeds();
    let mut outcomes = [0, 0];
    for kib in (60_000..=420_000).step_by(40_000) {
        for arguments in [
            &["train", "tiny.toml", "--run-dir", "out", "--overwrite", "--no-eval"][..],
            &["data", "prepare", "text", "--output", "corpus"],
            &["eval", "perplexity", "--model", "model"],
            &["generate", "--model", "model", "--max-tokens", "2", "the"],
            &["selftest", "--device", "cpu", "--filter", "gate"],
            &["bench", "attention", "--device", "cpu", "--tokens", "64", "--heads", "4/1"],
        ] {
            let run = limited(directory.path(), kib, arguments);
            let is_error = run.code != 0;
            outcomes[usize::from(is_error)] += 1;
            if is_error {
                let message = format!("{arguments:?} at {kib} KiB: {}: {}", run.code, run.stderr);
                assert_eq!(run.code, 2, "{message}");
                assert!(run.stderr.contains("error: "), "{message}");
                assert!(run.stderr.contains("\nhint: "), "{message}");
            }
        }
    }
    let [successes, errors] = outcomes;
    assert!(successes > 0 && errors > 0, "{outcomes:?}");
}

/// A checkpoint may allow millions of positions; a table for all of them would need gigabytes.
#[cfg(target_os = "linux")]
#[test]
fn positions_cost_nothing_until_they_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    common::copy_checkpoint(&golden_case("ssa_bs16_k4_T200"), &at("model"));
    let config = fs::read_to_string(at("model/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = 100_000_000.into();
    fs::write(at("model/config.json"), config.to_string()).unwrap();
    let ids: Vec<u8> = (0..20_i64).flat_map(i64::to_le_bytes).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![1, 20], &ids);
    let file = safetensors::serialize([("input_ids", view.unwrap())], None).unwrap();
    fs::write(at("in.safetensors"), file).unwrap();
    let forward = ["forward", "--model", "model", "--input", "in.safetensors", "--threads", "1"];
    let mode = ["--attention", "full", "--output", "out.safetensors"];
    limited(directory.path(), 3_000_000, &[&forward[..], &mode].concat()).succeeds();
}

#[test]
fn weights_that_are_not_finite_end_with_their_own_code() {
    let directory = workplace();
    ssa(directory.path(), ["train", "tiny.toml", "--run-dir", "out", "--no-eval"]).succeeds();
    let weights = directory.path().join("out/checkpoint/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    let model = ["--model", "out"];
    let run = |verb: &[&str]| ssa(directory.path(), verb.iter().chain(&model));
    run(&["eval", "perplexity"]).fails(4, &["not finite"]);
    run(&["analyze"]).fails(4, &["not finite"]);

    let ids: Vec<u8> = (0..20_i64).flat_map(i64::to_le_bytes).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![1, 20], &ids);
    let file = safetensors::serialize([("input_ids", view.unwrap())], None).unwrap();
    fs::write(directory.path().join("in.safetensors"), file).unwrap();
    let forward = ["forward", "--input", "in.safetensors", "--attention", "full", "--output", "o"];
    run(&forward).fails(4, &["logits: not all elements are finite"]);
    assert!(!directory.path().join("o").exists());
    let resumed = ["--set", "model.init_from=out/checkpoint", "--run-dir", "next", "--no-eval"];
    ssa(directory.path(), ["train", "tiny.toml"].iter().chain(&resumed))
        .fails(4, &["the first bad value is in the weight"]);
}

/// The approximation in the released kernel supports only powers of two.
#[test]
fn budgets_unsupported_by_reference_selection_are_refused_first() {
    let directory = workplace();
    let rule = ["--set", "objective.selection=reference", "--set", "evaluation.budgets=8x2"];
    let train = ["train", "tiny.toml", "--run-dir", "out"];
    let train = |more: &[&str]| ssa(directory.path(), train.iter().chain(&rule).chain(more));
    for (setting, parts) in [
        ("evaluation.budgets=12x2", ["`evaluation.budgets` is 12x2", "power of two"]),
        ("evaluation.budgets=8x3", ["`evaluation.budgets` is 8x3", "power of two"]),
        ("model.block_size=12", ["`model.block_size` is 12", "power of two"]),
        ("model.block_counts=3", ["`model.block_counts` is 3", "power of two"]),
    ] {
        train(&["--set", setting]).fails(2, &parts);
    }
    assert!(!directory.path().join("out").exists());
    train(&["--no-eval"]).succeeds();

    let model = ["--model", "out", "--selection", "reference"];
    let run = |verb: &[&str]| ssa(directory.path(), verb.iter().chain(&model));
    let refused = ["16x3", "reference selection", "a power of two"];
    run(&["eval", "perplexity", "--budget", "16x3,16x4"]).fails(2, &refused);
    run(&["analyze", "--budget", "16x3"]).fails(2, &refused);
    run(&["eval", "perplexity"]).succeeds();
}

/// The estimate by which runs are refused, against what a run takes.
#[cfg(target_os = "linux")]
#[test]
fn the_estimated_peak_is_what_the_demo_takes() {
    let directory = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/demo.toml");
    let demo = demo.to_str().unwrap();
    let train = ["train", demo, "--threads", "2", "--run-dir", "out", "--no-eval"];
    let short = ["--set", "training.steps=4", "--set", "optimizer.warmup_steps=1"];
    let saving = ["--set", "checkpoint.every_steps=2", "--set", "monitoring.validate_every=0"];
    let arguments = [&train[..], &short, &saving].concat();
    let dry = ssa(directory.path(), arguments.iter().chain(&["--dry-run"])).succeeds();
    let peak = dry.stdout.lines().find(|line| line.starts_with("peak ")).unwrap();
    let estimated: f64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak.contains("MiB"), "{peak}");

    let mut command = common::command(directory.path());
    command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status_file = format!("/proc/{}/status", child.id());
    let mut measured = 0.0;
    let status = loop {
        // The largest resident size so far; gone when the program has ended.
        let text = fs::read_to_string(&status_file).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:")) {
            measured = line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0;
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(status.success());
    println!("estimated {estimated} MiB, measured {measured:.1} MiB");
    let ratio = measured / estimated;
    assert!((0.7..1.2).contains(&ratio), "estimated {estimated} MiB, measured {measured} MiB");
}
