//! System calls of the program: listing them, and making one fail.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Run, command};

/// A system call by name and occurrence, counted from 1.
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) number: usize,
    pub(crate) line: String,
}

/// Calls of the main thread that create or rename something, in order; `None` without strace.
pub(crate) fn calls(directory: &Path, arguments: &[&str]) -> Option<Vec<Call>> {
    let log = directory.join("calls.strace");
    let names = "trace=mkdir,mkdirat,rename,renameat,renameat2";
    let log_name = log.to_str().unwrap();
    let run = strace(directory, &["-o", log_name, "-e", names], arguments)?;
    run.succeeds();
    let mut calls: Vec<Call> = Vec::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let number = 1 + calls.iter().filter(|call| call.name == name).count();
        calls.push(Call { name: name.to_owned(), number, line: line.to_owned() });
    }
    Some(calls)
}

/// Runs the program and makes one call of its main thread fail, as on a full disk.
pub(crate) fn fail(directory: &Path, arguments: &[&str], call: &Call) -> Run {
    let trace = format!("trace={}", call.name);
    let inject = format!("inject={}:error=ENOSPC:when={}", call.name, call.number);
    strace(directory, &["-o", "/dev/null", "-e", &trace, "-e", &inject], arguments).unwrap()
}

/// Runs the program under strace; `None` if strace is missing or not permitted.
fn strace(directory: &Path, options: &[&str], arguments: &[&str]) -> Option<Run> {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let program = command(directory);
    let mut strace = Command::new("strace");
    strace.current_dir(directory).args(options).arg(program.get_program()).args(arguments);
    let output = strace.output().unwrap();
    Some(Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    })
}
