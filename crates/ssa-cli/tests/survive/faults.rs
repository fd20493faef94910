//! External faults: a failing disk, a removed directory or lock, a copied run, a changed text, a
//! different working directory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::Value;

use crate::common::process::{end, signal, steps_done};
use crate::common::{Run, command, ssa, workplace};
use crate::program::{
    ENDLESS, arguments, leftovers, resume, start, start_and_wait, straight, with,
};
use crate::strace;

/// A step is logged, saved and measured, or nothing of it: a failed write of the best weights loses
/// no measurement.
#[test]
fn a_failed_write_of_the_best_weights_loses_no_validation() {
    let directory = workplace();
    let traced = arguments("straight");
    let Some(calls) = strace::calls(directory.path(), &traced) else {
        return println!("skipped: no strace");
    };
    let expected = leftovers(&directory.path().join("straight"));
    let best: Vec<_> = calls.iter().filter(|call| call.line.contains("best")).collect();
    assert!(best.len() >= 20, "directories are created and renamed: {}", best.len());
    for (number, call) in best.into_iter().step_by(4).enumerate() {
        let name = format!("run-{number}");
        let failed = strace::fail(directory.path(), &arguments(&name), call);
        failed.fails(3, &["best", "No space left on device", "hint: free some space"]);
        ssa(directory.path(), arguments(&name)).succeeds();
        leftovers(&directory.path().join(&name)).must_equal(&expected);
    }
}

/// Without `trap '' XFSZ`, the system kills a process that writes beyond the limit.
#[test]
fn a_file_size_limit_is_an_error_and_not_a_signal() {
    let directory = workplace();
    let program = command(directory.path());
    let mut shell = Command::new("sh");
    shell.current_dir(directory.path()).args(["-c", "ulimit -f 100; exec \"$@\"", "sh"]);
    let output = shell.arg(program.get_program()).args(arguments("out")).output().unwrap();
    let run = Run {
        code: output.status.code().expect("no signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    run.fails(3, &["safetensors: File too large", "hint: raise the file size limit", "ulimit -f"]);
}

/// An endless run that writes only its logs.
fn quiet_run(directory: &Path) -> Child {
    let settings =
        ["checkpoint.every_steps=0", "monitoring.validate_every=0", "monitoring.tensorboard=false"];
    let settings: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let arguments = with(&with(&arguments("out"), &ENDLESS), &settings);
    start_and_wait(directory, &arguments, "out", 3)
}

#[test]
fn a_run_whose_directory_is_removed_stops() {
    let directory = workplace();
    let run = directory.path().join("out");
    let child = quiet_run(directory.path());
    fs::remove_dir_all(&run).unwrap();
    end(child).fails(3, &["out/run.lock was removed or replaced", "hint: "]);
    assert!(!run.exists(), "nothing is recreated");
}

#[test]
fn a_run_whose_lock_is_removed_stops_for_the_next() {
    let directory = workplace();
    let expected = straight(directory.path());
    let first = quiet_run(directory.path());
    fs::remove_file(directory.path().join("out/run.lock")).unwrap();
    let keys = [
        "training.steps=24",
        "checkpoint.every_steps=2",
        "monitoring.validate_every=5",
        "monitoring.tensorboard=true",
    ];
    let mut second = resume("out").to_vec();
    for setting in keys {
        second.extend(["--set", setting, "--allow-change", setting.split('=').next().unwrap()]);
    }
    let second = start(directory.path(), &second);
    end(first).fails(3, &["out/run.lock was removed or replaced", "hint: "]);
    end(second).succeeds();
    // No step is logged twice.
    leftovers(&directory.path().join("out")).must_equal(&expected);
}

/// `cp -rL` and file systems without links turn `latest` into a directory or file.
#[test]
fn a_copied_run_is_resumed() {
    let directory = workplace();
    let expected = straight(directory.path());
    let child = start_and_wait(directory.path(), &arguments("out"), "out", 5);
    signal(child.id(), "TERM");
    assert_eq!(end(child).code, 5);
    let mut copy = Command::new("cp");
    copy.args(["-rL", "out", "copy"]).current_dir(directory.path());
    assert!(copy.status().unwrap().success());
    let latest = directory.path().join("copy/checkpoints/latest");
    assert!(latest.symlink_metadata().unwrap().is_dir());
    ssa(directory.path(), resume("copy")).succeeds();
    leftovers(&directory.path().join("copy")).must_equal(&expected);
    assert_eq!(fs::read_link(&latest).unwrap(), Path::new("step-24"));
}

#[test]
fn settings_of_a_finished_run_are_not_ignored() {
    let directory = workplace();
    ssa(directory.path(), arguments("out")).succeeds();
    let before = leftovers(&directory.path().join("out"));
    for setting in ["training.steps=500", "training.steps=12", "monitoring.tensorboard=false"] {
        let changed = with(&resume("out"), &["--set", setting]);
        let key = setting.split('=').next().unwrap();
        let allow = format!("--allow-change {key}");
        ssa(directory.path(), changed).fails(2, &["the configuration has changed", key, &allow]);
    }
    leftovers(&directory.path().join("out")).must_equal(&before);
    // An allowed change of the evaluation evaluates again.
    let evaluate = ["train", "--threads", "1", "--resume", "out"];
    let budgets = ["--set", "evaluation.budgets=[\"8x1\"]", "--allow-change", "evaluation.budgets"];
    ssa(directory.path(), with(&evaluate, &budgets)).succeeds();
    let summary = fs::read_to_string(directory.path().join("out/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["config"]["evaluation"]["budgets"], serde_json::json!(["8x1"]));
    assert!(summary["evaluation"].is_object(), "{summary}");
    // Without checkpoints it could only be trained again from the start.
    fs::remove_dir_all(directory.path().join("out/checkpoints")).unwrap();
    let longer = ["--set", "training.steps=30", "--allow-change", "training.steps"];
    ssa(directory.path(), with(&resume("out"), &longer))
        .fails(2, &["out: no run to resume", "it is finished and has no checkpoints"]);
    let same = ssa(directory.path(), resume("out")).succeeds();
    assert!(same.stderr.contains("this run is finished"), "{}", same.stderr);
}

#[test]
fn a_changed_held_out_text_is_detected() {
    let directory = workplace();
    let held_out = directory.path().join("held-out.txt");
    fs::write(&held_out, "held out text one. ".repeat(40)).unwrap();
    let valid = ["--set", "data.valid_paths=[\"held-out.txt\"]"];
    let child = start_and_wait(directory.path(), &with(&arguments("out"), &valid), "out", 5);
    signal(child.id(), "TERM");
    assert_eq!(end(child).code, 5);
    fs::write(&held_out, "quite another one. ".repeat(40)).unwrap();
    let parts = ["the held-out text is not the one", "--allow-change data.valid_paths"];
    ssa(directory.path(), resume("out")).fails(3, &parts);
    ssa(directory.path(), with(&arguments("out"), &valid)).fails(3, &parts);
    let allowed = with(&resume("out"), &["--allow-change", "data.valid_paths"]);
    ssa(directory.path(), allowed).succeeds();
}

#[test]
fn a_run_is_resumed_from_any_directory() {
    let directory = workplace();
    let expected = straight(directory.path());
    let child = start_and_wait(directory.path(), &arguments("out"), "out", 5);
    signal(child.id(), "TERM");
    assert_eq!(end(child).code, 5);
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    ssa(&elsewhere, resume("../out")).succeeds();
    leftovers(&directory.path().join("out")).must_equal(&expected);
    for model in ["../out/checkpoint", "../out/checkpoints/latest"] {
        let eval = ["eval", "perplexity", "--model", model, "--budgets", "8x1"];
        let run = ssa(&elsewhere, eval).succeeds();
        assert!(run.stderr.contains("held out by the run"), "{}", run.stderr);
    }
    // The run may move together with its text.
    let moved = directory.path().join("moved");
    fs::create_dir(&moved).unwrap();
    for name in ["text", "out"] {
        fs::rename(directory.path().join(name), moved.join(name)).unwrap();
    }
    let longer = ["--set", "training.steps=26", "--allow-change", "training.steps"];
    ssa(&moved, with(&resume("out"), &longer)).succeeds();
    assert_eq!(steps_done(&moved.join("out")), 26);
}

/// TOML is UTF-8, so `config.toml` cannot store such a name.
#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_utf8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let directory = workplace();
    let name = OsStr::from_bytes(b"b\xfccher.txt");
    fs::copy(directory.path().join("text/00.txt"), directory.path().join(name)).unwrap();
    let mut train: Vec<&OsStr> = arguments("out").into_iter().map(OsStr::new).collect();
    train.extend([OsStr::new("--data"), name]);
    ssa(directory.path(), train).fails(2, &["`data.paths` is b", "a path in UTF-8", "hint: "]);
    assert!(!directory.path().join("out").exists());
}
