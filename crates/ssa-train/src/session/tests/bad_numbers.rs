//! Losses and gradients that are not finite.

use super::*;

#[test]
fn bad_rows_are_skipped_and_counted() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    let path = directory.path().join("run");
    let (run, trainer) = begin(&path, &plan, &[4, 5]);
    let mut session = Session::new(&run, trainer).unwrap();
    let skipped =
        all(&mut session).iter().filter(|event| matches!(event, Event::Skipped(_))).count();
    let trainer = session.finish().unwrap();
    assert_eq!(skipped, 2);
    assert_eq!(trainer.bad_steps(), crate::BadSteps { skipped: 2, in_row: 0, rollbacks: 0 });
    assert_eq!(
        metrics(&path).iter().map(|step| step.step).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(events(&run), ["started", "skipped 4", "skipped 4", "trained 8"]);
    // Two steps of four rows had no effect.
    assert_eq!(run.checkpoints().newest().unwrap().unwrap().state().rows_read, 40);
    drop(run);

    // The same run in two parts, split between the bad steps.
    let parts = directory.path().join("parts");
    let (run, trainer) = begin(&parts, &plan, &[4, 5]);
    let mut session = Session::new(&run, trainer).unwrap();
    assert!(matches!(steps(&mut session, 4)[3], Event::Skipped(_)));
    session.interrupt().unwrap();
    drop(run);
    let (run, trainer) = resume(&parts, &plan, &[4, 5]);
    let mut session = Session::new(&run, trainer).unwrap();
    all(&mut session);
    session.finish().unwrap();
    assert!(last_checkpoint(&parts) == last_checkpoint(&path) && metrics(&parts) == metrics(&path));
}

#[test]
fn too_many_in_a_row_roll_back_to_the_checkpoint() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    let path = directory.path().join("run");
    let (run, trainer) = begin(&path, &plan, &[4, 5, 6]);
    let mut session = Session::new(&run, trainer).unwrap();
    let events_seen = all(&mut session);
    let trainer = session.finish().unwrap();
    let back = events_seen.iter().find_map(|event| match event {
        Event::RolledBack { bad, to } => Some((bad.step, *to)),
        _ => None,
    });
    assert_eq!(back, Some((4, 2)));
    assert_eq!(trainer.bad_steps(), crate::BadSteps { skipped: 3, in_row: 0, rollbacks: 1 });
    assert_eq!(
        metrics(&path).iter().map(|step| step.step).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    let story = ["started", "skipped 4", "skipped 4", "skipped 4", "back 3 2", "trained 8"];
    assert_eq!(events(&run), story);
}

#[test]
fn weights_that_went_bad_are_replaced() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    let path = directory.path().join("run");
    let (run, trainer) = begin(&path, &plan, &[]);
    let mut session = Session::new(&run, trainer).unwrap();
    steps(&mut session, 5);
    session.trainer.model.parameters_mut().norm.as_mut_slice().unwrap().fill(f32::NAN);
    let rest = all(&mut session);
    assert!(matches!(rest[2], Event::RolledBack { to: 4, .. }), "{rest:?}");
    let trainer = session.finish().unwrap();
    let norm = trainer.model().parameters().norm.as_slice().unwrap();
    assert!(norm.iter().all(|weight| weight.is_finite()));
    assert_eq!(metrics(&path).len(), 8);
}

#[test]
fn a_run_stops_with_a_diagnosis_if_rolling_back_does_not_help() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&[]);
    let path = directory.path().join("run");
    let (run, trainer) = begin(&path, &plan, &[4, 5, 6, 7, 8, 9]);
    let mut session = Session::new(&run, trainer).unwrap();
    let last = session.by_ref().last().unwrap().unwrap_err();
    let TrainError::Diverged(diagnosis) = &last else { panic!("{last}") };
    assert_eq!((diagnosis.bad.step, diagnosis.in_row, diagnosis.rolled_back_to), (3, 3, Some(2)));
    assert_eq!(diagnosis.bad.rows.len(), 4);
    assert_eq!(diagnosis.place, "the weight model.embed_tokens.weight");
    let message = last.to_string();
    for part in [
        "step 3: the ",
        "rows ",
        "after rolling back to the checkpoint of step 2",
        "optimizer.learning_rate",
    ] {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
    assert!(session.next().is_none());
    assert_eq!(events(&run).last().unwrap(), "diverged 3");
}

#[test]
fn the_diagnosis_names_the_first_bad_layer() {
    let directory = tempdir().unwrap();
    let plan = run_plan(&["training.max_bad_steps=1"]);
    let (run, mut trainer) = begin(&directory.path().join("run"), &plan, &[]);
    trainer.model.parameters_mut().embed_tokens.as_mut_slice().unwrap().fill(0.5);
    // Finite as a weight, but the product overflows.
    let norm = &mut trainer.model.parameters_mut().layers[1].input_layernorm;
    norm.as_mut_slice().unwrap().fill(f32::MAX);
    let mut session = Session::new(&run, trainer).unwrap();
    let message = session.next().unwrap().unwrap_err().to_string();
    assert!(message.contains("and there is no checkpoint to roll back to"), "{message}");
    assert!(message.contains("the queries of layer 1 of micro-batch 0 (rows "), "{message}");
}

#[test]
fn ranks_skip_and_roll_back_together() {
    let plan = run_plan(&["training.groups=2"]);
    for bad_steps in [&[4][..], &[4, 5, 6]] {
        let directory = tempdir().unwrap();
        let [alone, shared] = [1, 2].map(|size| {
            let path = directory.path().join(size.to_string());
            let (run, trainer) = begin(&path, &plan, bad_steps);
            on_ranks(size, trainer, |trainer| {
                let mut session = Session::new(&run, trainer).unwrap();
                all(&mut session);
                session.finish().unwrap().release_ranks().unwrap();
            });
            (last_checkpoint(&path), metrics(&path), events(&run))
        });
        assert_eq!(shared.2, alone.2);
        assert!(shared == alone, "bad steps {bad_steps:?}");
    }
}
