mod bad_numbers;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use ssa_data::{ByteTokenizer, PackOptions, PackedRows, Packing, Remainder, RowId, pack};
use tempfile::tempdir;

use super::*;
use crate::metrics::tests::timeless;
use crate::trainer::tests::{on_ranks, plan};
use crate::{Existing, TrainConfig, TrainPlan, initial_model};

/// Eight steps, with checkpoints at 2, 4, 6 and 8.
const RUN: [&str; 4] = [
    "training.steps=8",
    "training.micro_batch_size=2",
    "checkpoint.every_steps=2",
    "model.tie_word_embeddings=false",
];

/// A byte whose embedding is infinite.
const POISON: u8 = b'Z';

fn run_plan(more: &[&str]) -> TrainPlan {
    plan(&[&RUN[..], more].concat())
}

/// 60 rows of one document each. The rows of `bad_steps`, counted from 1 in a run without bad
/// steps, contain the bad byte.
fn rows(plan: &TrainPlan, bad_steps: &[usize]) -> PackedRows {
    let clean = pack_rows(plan, &[]);
    let mut trainer =
        Trainer::new(plan.clone(), initial_model(plan).unwrap(), clean.clone()).unwrap();
    let mut bad = Vec::new();
    for step in bad_steps {
        trainer.cursor = (step - 1) as u64 * plan.batches().micro_batches(0) as u64;
        let document = |id: RowId| clean.row(id.row).unwrap().ids()[0] as usize - usize::from(b'a');
        bad.extend(trainer.next_rows().into_iter().map(document));
    }
    pack_rows(plan, &bad)
}

/// The first byte of each document is its number.
fn pack_rows(plan: &TrainPlan, bad: &[usize]) -> PackedRows {
    let length = plan.sequence_length();
    let document = |number: usize| {
        let mut text = b"the sun and the moon and the stars of the night and more".to_vec();
        text.truncate(length - 1);
        text[0] = b'a' + number as u8;
        text[7] = if bad.contains(&number) { POISON } else { b'.' };
        ByteTokenizer.encode(&text)
    };
    let documents: Vec<Vec<u32>> = (0..60).map(document).collect();
    let options = PackOptions {
        sequence_length: length,
        packing: Packing::Concat,
        seed: 3,
        remainder: Remainder::Drop,
    };
    let rows = pack(&documents, ByteTokenizer::EOS, &options).unwrap();
    assert_eq!(rows.len(), 60);
    rows
}

fn begin(path: &Path, plan: &TrainPlan, bad_steps: &[usize]) -> (RunDir, Trainer) {
    let run = RunDir::create_named(path, Existing::Refuse).unwrap();
    run.write_config(plan.config()).unwrap();
    let mut model = initial_model(plan).unwrap();
    let width = model.config().hidden_size;
    let embedding = model.parameters_mut().embed_tokens.as_mut_slice().unwrap();
    embedding[usize::from(POISON) * width..][..width].fill(f32::INFINITY);
    (run, Trainer::new(plan.clone(), model, rows(plan, bad_steps)).unwrap())
}

fn resume(path: &Path, plan: &TrainPlan, bad_steps: &[usize]) -> (RunDir, Trainer) {
    let run = RunDir::open(path).unwrap();
    let checkpoint = run.checkpoints().newest().unwrap().unwrap();
    run.continue_with(plan.config(), Some(&checkpoint), &[]).unwrap();
    let rows = rows(plan, bad_steps);
    checkpoint.check_text(&rows.clone().into(), &[]).unwrap();
    let trainer = Trainer::resume(plan.clone(), &checkpoint, rows).unwrap();
    (run, trainer)
}

fn steps(session: &mut Session<'_>, count: usize) -> Vec<Event> {
    session.take(count).map(Result::unwrap).collect()
}

fn all(session: &mut Session<'_>) -> Vec<Event> {
    steps(session, usize::MAX)
}

/// The metrics of a run without its times.
fn metrics(path: &Path) -> Vec<StepMetrics> {
    let text = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let parse = |line| {
        let LoggedStep { metrics, .. } = serde_json::from_str(line).unwrap();
        timeless(metrics)
    };
    text.lines().map(parse).collect()
}

fn events(run: &RunDir) -> Vec<String> {
    let name = |event| match event {
        RunEvent::Started { .. } => "started".to_owned(),
        RunEvent::Resumed { step, lost_steps } => format!("resumed {step} {lost_steps}"),
        RunEvent::Changed { keys, .. } => format!("changed {}", keys.join(" ")),
        RunEvent::Skipped { step, .. } => format!("skipped {step}"),
        RunEvent::RolledBack { step, to } => format!("back {step} {to}"),
        RunEvent::Interrupted { step } => format!("interrupted {step}"),
        RunEvent::Diverged { step, .. } => format!("diverged {step}"),
        RunEvent::Trained { step } => format!("trained {step}"),
    };
    run.journal().unwrap().into_iter().map(|entry| name(entry.event)).collect()
}

/// The last checkpoint of a run, byte by byte.
fn last_checkpoint(path: &Path) -> Vec<Vec<u8>> {
    let files = ["model.safetensors", "optimizer.safetensors", "state.json"];
    files.map(|file| fs::read(path.join("checkpoints/step-8").join(file)).unwrap()).to_vec()
}

/// A run without interruption; returns its last checkpoint and metrics.
fn uninterrupted(
    path: &Path,
    plan: &TrainPlan,
    bad_steps: &[usize],
) -> (Vec<Vec<u8>>, Vec<StepMetrics>) {
    let (run, trainer) = begin(path, plan, bad_steps);
    let mut session = Session::new(&run, trainer).unwrap();
    all(&mut session);
    session.finish().unwrap();
    (last_checkpoint(path), metrics(path))
}

#[test]
fn interrupted_and_killed_runs_end_like_uninterrupted_ones() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    let expected = uninterrupted(&directory.path().join("uninterrupted"), &plan, &[]);
    for interrupted in [true, false] {
        let path = directory.path().join(interrupted.to_string());
        let (run, trainer) = begin(&path, &plan, &[]);
        let mut session = Session::new(&run, trainer).unwrap();
        steps(&mut session, 3);
        session.keep(Measurements::default()).unwrap();
        if interrupted {
            session.interrupt().unwrap()
        } else {
            drop(session)
        }
        drop(run);
        let (run, trainer) = resume(&path, &plan, &[]);
        let mut session = Session::new(&run, trainer).unwrap();
        assert_eq!(session.take_history().len(), if interrupted { 3 } else { 2 });
        all(&mut session);
        let model = session.finish().unwrap().into_model();
        assert!((last_checkpoint(&path), metrics(&path)) == expected);
        let saved = ssa_model::Model::load(&run.checkpoint()).unwrap();
        assert!(saved.parameters().same_elements(model.parameters()).unwrap());
        let story = match interrupted {
            true => ["started", "interrupted 3", "resumed 3 0", "trained 8"].to_vec(),
            false => ["started", "resumed 2 1", "trained 8"].to_vec(),
        };
        assert_eq!(events(&run), story);
        assert_eq!(run.checkpoints().steps().unwrap(), [6, 8]);
    }
}

#[test]
fn an_abandoned_step_leaves_no_trace() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    assert!(plan.batches().micro_batches(0) > 1);
    let expected = uninterrupted(&directory.path().join("uninterrupted"), &plan, &[]);
    let path = directory.path().join("run");
    let (run, trainer) = begin(&path, &plan, &[]);
    let mut session = Session::new(&run, trainer).unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    session.stop_on(flag.clone());
    steps(&mut session, 3);
    flag.store(true, Ordering::Relaxed);
    assert!(session.next().is_none() && session.next().is_none());
    session.interrupt().unwrap();
    drop(run);
    let (run, trainer) = resume(&path, &plan, &[]);
    let mut session = Session::new(&run, trainer).unwrap();
    all(&mut session);
    session.finish().unwrap();
    assert_eq!(events(&run), ["started", "interrupted 3", "resumed 3 0", "trained 8"]);
    assert!((last_checkpoint(&path), metrics(&path)) == expected);
}

#[test]
fn time_saves_too() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[
        "checkpoint.every_steps=0",
        "checkpoint.every_minutes=1e-9",
        "checkpoint.keep_last=9",
    ]);
    uninterrupted(directory.path().join("run").as_path(), &plan, &[]);
    let checkpoints = crate::Checkpoints::of_run(&directory.path().join("run"));
    assert_eq!(checkpoints.steps().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_changed_configuration_is_refused_unless_allowed() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    let plan = run_plan(&[]);
    let (run, trainer) = begin(&path, &plan, &[]);
    let mut session = Session::new(&run, trainer).unwrap();
    steps(&mut session, 4);
    session.interrupt().unwrap();
    let checkpoint = run.checkpoints().newest().unwrap();
    let changed = run_plan(&["training.steps=12", "optimizer.beta1=0.8"]);
    let check = |allowed: &[&str]| {
        let allowed: Vec<String> = allowed.iter().map(|&key| key.to_owned()).collect();
        run.continue_with(changed.config(), checkpoint.as_ref(), &allowed)
    };
    let message = check(&["training.steps"]).unwrap_err().to_string();
    assert!(message.contains("optimizer.beta1 is 0.8, was 0.9"), "{message}");
    assert!(
        !message.contains("training.steps") && message.ends_with("--allow-change optimizer.beta1"),
        "{message}"
    );
    assert_eq!(run.config().unwrap(), *plan.config());
    check(&["training.steps", "optimizer.beta1"]).unwrap();
    assert_eq!(run.config().unwrap(), *changed.config());
    // This is now its configuration, although the checkpoint is older.
    check(&[]).unwrap();
    let story = [
        "started",
        "interrupted 4",
        "changed training.steps is 12, was 8 optimizer.beta1 is 0.8, was 0.9",
    ];
    assert_eq!(events(&run), story);
}

#[test]
fn a_checkpoint_of_another_run_or_text_is_detected() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    let other = run_plan(&["objective.alpha=3"]);
    let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
    uninterrupted(&theirs, &other, &[]);
    let (run, trainer) = begin(&ours, &plan, &[]);
    let mut session = Session::new(&run, trainer).unwrap();
    steps(&mut session, 3);
    session.interrupt().unwrap();
    fs::rename(theirs.join("checkpoints/step-8"), ours.join("checkpoints/step-8")).unwrap();
    let checkpoint = run.checkpoints().newest().unwrap().unwrap();
    let error = run.continue_with(plan.config(), Some(&checkpoint), &[]).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("step-8: the configuration has changed: objective.alpha is 10.0, was 3.0"),
        "{message}"
    );

    let rows = rows(&plan, &[1]);
    let message = checkpoint.check_text(&rows.clone().into(), &[]).unwrap_err().to_string();
    assert!(message.contains("the training text is not the one that"), "{message}");
    checkpoint.check_text(&rows.into(), &["data.paths".to_owned()]).unwrap();
    TrainConfig::check_keys(&["data.paths".to_owned()], "--allow-change").unwrap();
}

#[test]
fn a_run_may_continue_with_a_different_batch_size() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("run");
    let (run, trainer) = begin(&path, &run_plan(&[]), &[]);
    let mut session = Session::new(&run, trainer).unwrap();
    steps(&mut session, 3);
    session.interrupt().unwrap();
    let other = run_plan(&["training.batch_size=6", "training.micro_batch_size=6"]);
    let checkpoint = run.checkpoints().newest().unwrap().unwrap();
    let trainer = Trainer::resume(other, &checkpoint, pack_rows(&run_plan(&[]), &[])).unwrap();
    let mut session = Session::new(&run, trainer).unwrap();
    all(&mut session);
    assert_eq!(session.finish().unwrap().cursor, 2 + 5);
}
