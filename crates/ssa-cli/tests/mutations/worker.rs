//! Readers in a process of their own, under limits.

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::healthy::{Healthy, copy_tree};
use crate::limits::{ADDRESS_SPACE, HUNG, LONGEST, Memory, Watchdog};
use crate::mutate::Mutator;
use crate::readers::Reader;

const JOB: &str = "SSA_MUTATIONS_JOB";
/// A copy of the input that is being read.
const INPUT: &str = "input";

/// What a worker has to do.
#[derive(Serialize, Deserialize)]
struct Job {
    reader: String,
    healthy: PathBuf,
    work: PathBuf,
    seed: usize,
    from: usize,
    to: usize,
}

/// What came of the inputs of a reader.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) inputs: usize,
    pub(crate) refused: usize,
    /// What one of them took at most.
    pub(crate) mebibytes: u64,
    /// And how long.
    pub(crate) milliseconds: u64,
    pub(crate) failures: Vec<String>,
}

/// Tries the inputs of a reader, in as many processes as it takes.
pub(crate) fn run(healthy: &Healthy, reader: &Reader, seed: usize, count: usize) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    let mut report = Report::default();
    while report.inputs < count {
        let job = Job {
            reader: reader.name.to_owned(),
            healthy: healthy.path().to_owned(),
            work: work.clone(),
            seed,
            from: report.inputs,
            to: count,
        };
        let line = format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" --exact worker_process");
        let mut worker = Command::new("sh");
        worker.args(["-c", &line]).arg(env::current_exe().unwrap());
        worker.env(JOB, serde_json::to_string(&job).unwrap());
        worker.env("HF_HUB_OFFLINE", "1").env("HF_HOME", healthy.path().join("texts/hf"));
        let output = worker.output().unwrap();
        let part = fs::read(progress_file(&work)).unwrap_or_default();
        let part: Report = serde_json::from_slice(&part).unwrap_or_default();
        report.refused += part.refused;
        report.mebibytes = report.mebibytes.max(part.mebibytes);
        report.milliseconds = report.milliseconds.max(part.milliseconds);
        report.failures.extend(part.failures);
        report.inputs += part.inputs;
        let broken = output.status.code() == Some(101);
        assert!(!broken, "{}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            let how = match output.status.code() {
                Some(HUNG) => format!("more than {} s", LONGEST.as_secs()),
                _ => output.status.to_string(),
            };
            let number = report.inputs;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let kept = kept(reader, number);
            fs::copy(work.join(INPUT), &kept).unwrap();
            let kept = kept.display();
            report.failures.push(format!("{} {number} ({kept}): {how}: {said}", reader.name));
            // The one that ended the process.
            report.inputs += 1;
        }
        fs::remove_dir_all(&work).unwrap();
    }
    report
}

/// Where an input that failed is kept.
fn kept(reader: &Reader, number: usize) -> PathBuf {
    env::temp_dir().join(format!("ssa-mutation-{}-{number}", reader.name))
}

fn progress_file(work: &Path) -> PathBuf {
    work.join("progress.json")
}

/// Does the job of this process, if it has one.
pub(crate) fn serve(readers: &[Reader]) {
    let Ok(job) = env::var(JOB) else { return };
    let Job { reader, healthy, work, seed, from, to } = serde_json::from_str(&job).unwrap();
    let reader = readers.iter().find(|known| known.name == reader).unwrap();
    let (whole, damaged) = (healthy.join(reader.files), work.join("files"));
    let watchdog = Watchdog::start();
    copy_tree(&whole, &damaged);
    // Without damage, it is read.
    (reader.reseal)(&damaged);
    for file in reader.damaged {
        assert_eq!((reader.read)(&damaged, file), Ok(()), "{}: {file}", reader.name);
    }
    fs::remove_dir_all(&damaged).unwrap();
    copy_tree(&whole, &damaged);
    let mut report = Report::default();
    for number in from..to {
        fs::write(progress_file(&work), serde_json::to_vec(&report).unwrap()).unwrap();
        // Every input follows from its number alone.
        let mut mutator = Mutator::new(((seed as u64) << 32) + number as u64);
        let file = reader.damaged[mutator.below(reader.damaged.len())];
        let bytes = mutator.mutate(&fs::read(whole.join(file)).unwrap());
        fs::write(damaged.join(file), &bytes).unwrap();
        fs::write(work.join(INPUT), &bytes).unwrap();
        if mutator.below(2) == 0 {
            (reader.reseal)(&damaged);
        }
        watchdog.begin();
        let memory = Memory::begin();
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (reader.read)(&damaged, file)));
        let mebibytes = memory.mebibytes();
        report.milliseconds = report.milliseconds.max(begin.elapsed().as_millis() as u64);
        report.mebibytes = report.mebibytes.max(mebibytes);
        let problem = match result {
            Err(_) => Some("a panic".to_owned()),
            Ok(_) if mebibytes > reader.mebibytes => Some(format!("{mebibytes} MiB")),
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                report.refused += 1;
                error.contains("anicked").then_some(error)
            }
        };
        if let Some(problem) = problem {
            let kept = kept(reader, number);
            fs::write(&kept, &bytes).unwrap();
            let kept = kept.display();
            report.failures.push(format!("{} {number} ({file}, {kept}): {problem}", reader.name));
        }
        report.inputs += 1;
        if reader.writes {
            fs::remove_dir_all(&damaged).unwrap();
            copy_tree(&whole, &damaged);
        } else {
            fs::copy(whole.join(file), damaged.join(file)).unwrap();
        }
    }
    fs::write(progress_file(&work), serde_json::to_vec(&report).unwrap()).unwrap();
}
