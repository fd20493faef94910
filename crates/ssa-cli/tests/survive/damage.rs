//! Full disks, corrupt checkpoints, changed settings: each gives a clear error, and nothing is
//! lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::common::process::{end, signal};
use crate::common::{Run, command, ssa, workplace};
use crate::program::{
    Leftovers, arguments, journal, leftovers, resume, start_and_wait, straight, with,
};

/// An interrupted run in `out` with at least two checkpoints, and the result of the uninterrupted
/// run.
fn interrupted() -> (TempDir, Leftovers) {
    let directory = workplace();
    let expected = straight(directory.path());
    let child = start_and_wait(directory.path(), &arguments("out"), "out", 5);
    signal(child.id(), "TERM");
    assert_eq!(end(child).code, 5);
    (directory, expected)
}

/// The steps that have a checkpoint, ascending.
fn checkpoints(run: &Path) -> Vec<usize> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<usize> = names
        .filter_map(|name| name.strip_prefix("step-").and_then(|step| step.parse().ok()))
        .collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_damaged_checkpoint_is_named_and_an_older_one_offered() {
    let (directory, expected) = interrupted();
    let run = directory.path().join("out");
    let [older, newest] = checkpoints(&run)[..] else { panic!("two are kept") };
    let file = format!("out/checkpoints/step-{newest}/optimizer.safetensors");
    let path = directory.path().join(&file);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 7] ^= 1;
    let remedy = format!("or remove out/checkpoints/step-{newest} to continue from step {older}");
    for bytes in [&flipped, &whole[..whole.len() / 2]] {
        fs::write(&path, bytes).unwrap();
        ssa(directory.path(), resume("out"))
            .fails(3, &[&file, "is damaged", "SHA256SUMS", &remedy]);
        ssa(directory.path(), arguments("out")).fails(3, &[&file, "is damaged", &remedy]);
    }
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    ssa(directory.path(), resume("out")).succeeds();
    leftovers(&run).must_equal(&expected);
}

#[test]
fn a_changed_configuration_is_refused_until_it_is_allowed() {
    let (directory, expected) = interrupted();
    let run = directory.path().join("out");
    let before = fs::read(run.join("config.toml")).unwrap();
    let change = ["--set", "optimizer.beta2=0.9", "--set", "training.log_every=5"];
    for arguments in [resume("out").to_vec(), arguments("out")] {
        let changed = with(&arguments, &change);
        let parts = [
            "out/config.toml",
            "training.log_every is 5, was 2",
            "optimizer.beta2 is 0.9, was 0.95",
            "--allow-change training.log_every --allow-change optimizer.beta2",
        ];
        ssa(directory.path(), &changed).fails(2, &parts);
        let half = with(&changed, &["--allow-change", "training.log_every"]);
        let refused = ssa(directory.path(), &half).fails(2, &["optimizer.beta2 is 0.9"]);
        assert!(!refused.stderr.contains("log_every is"), "{}", refused.stderr);
    }
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), before);
    let misspelled = with(&resume("out"), &["--allow-change", "training.log_evry"]);
    ssa(directory.path(), misspelled).fails(2, &["did you mean `training.log_every`?"]);
    ssa(directory.path(), ["train", "tiny.toml", "--allow-change", "run.seed"])
        .fails(2, &["--resume"]);

    let allowed = with(
        &resume("out"),
        &["--set", "training.log_every=5", "--allow-change", "training.log_every"],
    );
    ssa(directory.path(), allowed).succeeds();
    assert!(leftovers(&run) != expected, "the configuration differs");
    assert_eq!(journal(&run), ["started", "interrupted", "changed", "resumed", "trained"]);
    let [ours, straight] = ["out", "straight"].map(|run| {
        fs::read(directory.path().join(run).join("checkpoint/model.safetensors")).unwrap()
    });
    assert!(ours == straight, "the change does not affect the weights");
}

#[test]
fn a_checkpoint_of_another_run_or_text_is_refused() {
    let (directory, _) = interrupted();
    let other = with(&arguments("other"), &["--set", "objective.alpha=3"]);
    ssa(directory.path(), other).succeeds();
    fs::rename(
        directory.path().join("other/checkpoints/step-24"),
        directory.path().join("out/checkpoints/step-24"),
    )
    .unwrap();
    let parts = ["out/checkpoints/step-24", "objective.alpha is 10.0, was 3.0"];
    ssa(directory.path(), resume("out")).fails(2, &parts);
    fs::remove_dir_all(directory.path().join("out/checkpoints/step-24")).unwrap();

    fs::write(directory.path().join("text/00.txt"), "0: the slow brown fox. ".repeat(8)).unwrap();
    ssa(directory.path(), resume("out"))
        .fails(3, &["the training text is not the one", "--allow-change data.paths"]);
    let allowed = with(&resume("out"), &["--allow-change", "data.paths"]);
    ssa(directory.path(), allowed).succeeds();
}

#[test]
fn a_run_can_be_extended() {
    let directory = workplace();
    ssa(directory.path(), arguments("out")).succeeds();
    let extended = ["--set", "training.steps=30", "--allow-change", "training.steps"];
    ssa(directory.path(), with(&resume("out"), &extended)).succeeds();
    assert_eq!(
        fs::read_to_string(directory.path().join("out/metrics.jsonl")).unwrap().lines().count(),
        30
    );
    assert_eq!(checkpoints(&directory.path().join("out")), [28, 30]);
}

#[test]
fn checkpoints_of_a_run_are_models() {
    let (directory, _) = interrupted();
    let newest = *checkpoints(&directory.path().join("out")).last().unwrap();
    let by_name = format!("out/checkpoints/step-{newest}");
    // So that any device can load them.
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = fs::read(directory.path().join(&by_name).join(file)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert!(
            tensors.iter().all(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32),
            "{file}"
        );
    }
    for model in [by_name.as_str(), "out/checkpoints/latest"] {
        let eval = ["eval", "perplexity", "--model", model, "--budgets", "8x1"];
        let run = ssa(directory.path(), eval).succeeds();
        assert!(run.stderr.contains("held out by the run"), "{}", run.stderr);
    }
}

#[test]
fn a_damaged_checkpoint_is_no_model_either() {
    let (directory, _) = interrupted();
    let latest = directory.path().join("out/checkpoints/latest");
    let path = latest.join("model.safetensors");
    flip_last_bit(&path);
    let parts = [
        "out/checkpoints/latest/model.safetensors is damaged: its SHA-256 is ",
        "use another checkpoint",
    ];
    ssa(directory.path(), ["eval", "perplexity", "--model", "out/checkpoints/latest"])
        .fails(3, &parts);
    let init = ["--set", "model.init_from=out/checkpoints/latest"];
    ssa(directory.path(), with(&arguments("next"), &init)).fails(3, &parts);
    assert!(!directory.path().join("next").exists());
    // The moments do not matter here.
    flip_last_bit(&path);
    fs::remove_file(latest.join("optimizer.safetensors")).unwrap();
    ssa(directory.path(), with(&arguments("next"), &init)).succeeds();
}

fn flip_last_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn there_must_be_a_run_to_resume() {
    let directory = workplace();
    ssa(directory.path(), resume("absent")).fails(2, &["absent", "no such directory"]);
    ssa(directory.path(), resume("text")).fails(2, &["text", "it has no config.toml"]);
    ssa(directory.path(), ["train"]).fails(2, &["no configuration", "--resume"]);
    ssa(directory.path(), ["train", "tiny.toml", "--resume", "out"]).fails(2, &["--resume"]);
}

/// Runs the program with a file size limit in blocks of 512 bytes.
fn with_small_files(directory: &Path, arguments: &[&str], blocks: usize) -> Run {
    let program = command(directory);
    let mut shell = Command::new("sh");
    // If the signal is ignored, writing beyond the limit is an error.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    shell
        .current_dir(directory)
        .args(["-c", &script, "sh"])
        .arg(program.get_program())
        .args(arguments);
    let output = shell.output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let (directory, expected) = interrupted();
    let run = directory.path().join("out");
    let before = checkpoints(&run);
    let size =
        fs::metadata(run.join(format!("checkpoints/step-{}/optimizer.safetensors", before[1])))
            .unwrap()
            .len();
    // Enough for the model, which is half the size of the moments.
    let blocks = size as usize * 3 / 4 / 512;
    let kept = format!(
        "the checkpoint of step {} is complete, and the run can be resumed from it",
        before[1]
    );
    let parts = ["the checkpoint of step ", "optimizer.safetensors: File too large", &kept];
    for _ in 0..2 {
        with_small_files(directory.path(), &resume("out"), blocks).fails(3, &parts);
        assert_eq!(checkpoints(&run), before);
    }
    ssa(directory.path(), resume("out")).succeeds();
    leftovers(&run).must_equal(&expected);
}

/// On a disk with room for two checkpoints, if the system allows creating one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let (directory, expected) = interrupted();
    let [older, newest] = checkpoints(&directory.path().join("out"))[..] else {
        panic!("two are kept")
    };
    let run = directory.path().join("disk/out");
    fs::create_dir(directory.path().join("disk")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=900k tmpfs disk && cp -r out disk/out && \
         rm -r disk/out/checkpoints/step-{older} && \
         {{ \"$@\"; echo code $?; ls disk/out/checkpoints; rm -r out; cp -r disk/out out; }}"
    );
    let program = command(directory.path());
    let mut shell = Command::new("unshare");
    shell.current_dir(directory.path()).args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
        "sh",
    ]);
    let output = shell.arg(program.get_program()).args(resume("disk/out")).output();
    let Ok(output) = output else { return println!("skipped: no unshare") };
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if !stdout.contains("code ") {
        return println!("skipped: no right to mount: {stderr}");
    }
    assert!(stdout.contains("code 3"), "{stdout}{stderr}");
    assert!(
        stderr.contains("No space left on device") && stderr.contains("free some space"),
        "{stderr}"
    );
    assert!(stdout.contains(&format!("step-{newest}\n")) && !stdout.contains(".tmp"), "{stdout}");
    assert!(!run.exists(), "the disk is gone with the shell");
    ssa(directory.path(), resume("out")).succeeds();
    leftovers(&directory.path().join("out")).must_equal(&expected);
}
