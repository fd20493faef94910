//! Replays `tests/cases`: inputs that once were read wrong or ended the program.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and say how long a case takes"
)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Deserialize;

/// The exit code of a command that this machine cannot run.
const SKIPPED: i32 = 77;

/// What every command may use. Some systems have no limit on the address space.
const PRELUDE: &str = "\
ulimit -v 8000000 2> /dev/null
await() {
    tries=0
    until [ -e \"$1\" ]; do
        tries=$((tries + 1)); [ $tries -lt 3000 ] || exit 99; sleep 0.02
    done
}";

/// `cases.toml`, which explains its keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    shared: Vec<PathBuf>,
    commands: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    run: String,
    #[serde(default)]
    code: i32,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
}

#[test]
fn every_case_has_the_right_outcome() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases");
    let table = fs::read_to_string(root.join("cases.toml")).unwrap();
    let Cases { case: cases } = toml::from_str(&table).unwrap();
    let folders = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap());
    for folder in folders.filter(|entry| entry.path().is_dir()) {
        let name = folder.file_name().into_string().unwrap();
        let known = name == "shared" || cases.iter().any(|case| case.name == name);
        assert!(known, "{name} is in no entry of cases.toml");
    }
    let failures: Vec<String> = cases.iter().filter_map(|case| replay(&root, case).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Runs the commands of a case; an error says what is wrong with the first that differs.
fn replay(root: &Path, case: &Case) -> Result<(), String> {
    let begin = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    for name in &case.shared {
        copy(&root.join("shared").join(name), &directory.path().join(name));
    }
    copy(&root.join(&case.name), directory.path());
    for step in &case.commands {
        let (code, printed) = run(directory.path(), &step.run);
        if code == SKIPPED && step.code != SKIPPED {
            println!("{}: skipped: {}", case.name, step.run);
            return Ok(());
        }
        let wrong = if code != step.code {
            format!("exit code {code} instead of {}", step.code)
        } else if printed.contains("panicked at") {
            "a panic".to_owned()
        } else if let Some(text) = step.says.iter().find(|text| !printed.contains(*text)) {
            format!("it does not say `{text}`")
        } else if let Some(text) = step.lacks.iter().find(|text| printed.contains(*text)) {
            format!("it says `{text}`")
        } else {
            continue;
        };
        return Err(format!("{}: {wrong}\n$ {}\n{printed}", case.name, step.run.trim()));
    }
    println!("{}: {:.1} s", case.name, begin.elapsed().as_secs_f64());
    Ok(())
}

/// The exit code of a line of shell, 128 and the number of the signal if one ended it, and what it
/// printed.
fn run(directory: &Path, line: &str) -> (i32, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_ssa"));
    let mut paths = vec![program.parent().unwrap().to_owned()];
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let limited = format!("{PRELUDE}\n{{ {line}\n}} 2>&1");
    let output = Command::new("sh")
        .args(["-c", &limited])
        .current_dir(directory)
        .stdin(Stdio::null())
        .env("PATH", env::join_paths(paths).unwrap())
        .env("COLUMNS", "100")
        // The same on machines with a GPU.
        .env("CUDA_VISIBLE_DEVICES", "")
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    let code = output.status.code().or(signal.map(|signal| 128 + signal)).unwrap();
    (code, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies a file, or a directory if there is one, with all that is in it.
fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        return;
    }
    let Ok(entries) = fs::read_dir(from) else { return };
    fs::create_dir_all(to).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
