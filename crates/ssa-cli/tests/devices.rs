//! `--device`, `ssa doctor`, `ssa selftest` and `ssa train --dry-run` on a machine whose GPUs are
//! hidden.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use ssa_testkit::golden_dir;

#[test]
fn the_doctor_shows_what_there_is() {
    let run = common::ssa(Path::new("."), ["doctor"]).succeeds();
    for part in ["libcuda", "NVRTC", "cuBLASLt", "cpu only", "kernels"] {
        assert!(run.stdout.contains(part), "`{part}` is not in:\n{}", run.stdout);
    }
}

#[test]
fn a_missing_gpu_is_an_error_with_a_remedy() {
    let run = common::ssa(Path::new("."), ["selftest", "--device", "cuda:0"]);
    run.fails(2, &["--device cuda:0", "--device cpu"]);
    common::ssa(Path::new("."), ["selftest", "--device", "gpu"]).fails(2, &["--device", "cuda:N"]);
}

#[test]
fn checks_pass_on_the_cpu() {
    let run = common::ssa(Path::new("."), ["selftest", "--filter", "swiglu"]).succeeds();
    assert!(run.stdout.contains(" passed, 0 failed"), "{}", run.stdout);
    common::ssa(Path::new("."), ["selftest", "--filter", "nothing"])
        .fails(2, &["`nothing`", "--filter"]);
}

#[test]
fn golden_cases_are_checked_if_they_are_complete() {
    let golden = golden_dir();
    let arguments = |directory: &Path| {
        ["selftest", "--filter", "swiglu", "--golden"]
            .map(Into::into)
            .into_iter()
            .chain([directory.as_os_str().to_owned()])
    };
    let run = common::ssa(Path::new("."), arguments(&golden)).succeeds();
    assert!(run.stdout.contains("golden"), "{}", run.stdout);

    let directory = tempfile::tempdir().unwrap();
    common::ssa(Path::new("."), arguments(directory.path())).fails(3, &["model"]);
    let case = directory.path().join("model/full_T200");
    common::copy_checkpoint(&common::golden_case("full_T200"), &case);
    fs::write(case.join("expected.json"), "{}").unwrap();
    fs::write(case.join("expected.safetensors"), "no tensors").unwrap();
    common::ssa(Path::new("."), arguments(directory.path())).fails(3, &["expected.safetensors"]);
    fs::copy(
        golden.join("model/full_T200/expected.safetensors"),
        case.join("expected.safetensors"),
    )
    .unwrap();
    fs::write(case.join("expected.json"), "{").unwrap();
    common::ssa(Path::new("."), arguments(directory.path())).fails(3, &["expected.json"]);
}

#[test]
fn a_dry_run_reports_memory_and_trains_nothing() {
    let place = common::workplace();
    let run = common::ssa(place.path(), ["train", "tiny.toml", "--dry-run"]).succeeds();
    for part in ["weights", "optimizer", "activations", "peak", "largest micro_batch_size"] {
        assert!(run.stdout.contains(part), "`{part}` is not in:\n{}", run.stdout);
    }
    for part in ["training text: text: ", "held-out text: ", "passes", "verdict: this run can be"] {
        assert!(run.stdout.contains(part), "`{part}` is not in:\n{}", run.stdout);
    }
    // It fails with the same errors as the run.
    let dry = |more: &[&str]| {
        common::ssa(place.path(), ["train", "tiny.toml", "--dry-run"].iter().chain(more))
    };
    dry(&["--data", "absent"]).fails(3, &["absent"]);
    let huge = ["--set", "data.sequence_length=16777216", "--set", "training.batch_size=1048576"];
    dry(&huge).fails(2, &["of memory on cpu", "are free", "hint: set "]);
    assert!(!place.path().join("runs").exists());

    // A finished run keeps its configuration and its results, regardless of other arguments.
    common::ssa(place.path(), ["train", "tiny.toml", "--run-dir", "run", "--plain"]).succeeds();
    let kept = |file: &str| fs::read(place.path().join("run").join(file)).unwrap();
    let before = ["config.toml", "summary.json", "report.html"].map(kept);
    let longer = ["--set", "training.steps=8", "--allow-change", "training.steps"];
    let resume = [&["train", "--resume", "run"], &longer[..]].concat();
    let would = |arguments: &[&str]| {
        common::ssa(place.path(), [&["train"], arguments, &["--dry-run"]].concat())
    };
    for (arguments, verdict) in [
        (&["--resume", "run"][..], "this run is finished"),
        (&resume[1..], "this run can be resumed"),
        (&["tiny.toml", "--run-dir", "run", "--overwrite"], "this run can be trained"),
        (&["tiny.toml", "--run-dir", "other"], "this run can be trained"),
    ] {
        let stdout = would(arguments).succeeds().stdout;
        assert!(stdout.contains(&format!("\nverdict: {verdict}")), "{stdout}");
    }
    let fewer = ["--resume", "run", "--set", "training.steps=2"];
    let allowed = [&fewer[..], &["--allow-change", "training.steps"]].concat();
    for (arguments, parts) in [
        (&["tiny.toml", "--run-dir", "run"][..], &["run holds a finished run", "--resume run"][..]),
        (&fewer, &["training.steps is 2, was", "--allow-change training.steps"]),
        (&allowed, &["run: training.steps is 2, but the run already has", "or more"]),
        (&["--resume", "tiny.toml"], &["tiny.toml: no run to resume: not a directory"]),
    ] {
        would(arguments).fails(2, parts);
        common::ssa(place.path(), [&["train"], arguments].concat()).fails(2, parts);
    }
    common::ssa(place.path(), [&resume[..], &["--device", "cuda"]].concat())
        .fails(2, &["--device cuda:0"]);
    assert!(before == ["config.toml", "summary.json", "report.html"].map(kept));
}
