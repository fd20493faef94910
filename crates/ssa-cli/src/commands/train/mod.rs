//! `ssa train`, from the plan to the report.

mod describe;
mod history;
mod measure;
mod memory;
mod monitor;
mod plan;
mod ranks;
mod results;
mod slow;
mod start;

use std::env;

use anyhow::Result;
use ssa_eval::EvalBatch;
use ssa_ranks::{Ranks, World};
use ssa_train::{Event, Measurements, Session, TrainError, TrainPlan, Trainer, initial_model};

use super::{device, start_threads};
use crate::args::{DeviceChoice, TrainArgs};
use crate::display::{Display, TrainProgress, note};
use crate::exit::Interrupted;
use crate::signals::Signals;
use history::StepHistory;
use measure::Measure;
use monitor::Monitor;
pub(super) use plan::{check_evaluation, require_data};
use slow::SlowRanks;
use start::RunStart;

const NOTHING_TO_DO: &str = "this run is finished: there is nothing left to do";

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    // The ranks, and which one this process is.
    let variable = |name: &str| env::var(name).ok();
    let world = World::find(args.gpus.or(args.ranks), args.rendezvous.as_deref(), variable)?;
    start_threads(&ranks::threads(&args.compute.threads, &world))?;

    // The plan: the checked configuration. Nothing is written yet.
    let plan = plan::load(args)?;
    plan.check_ranks(world.size)?;
    if args.dry_run && args.gpus.is_some_and(|gpus| gpus > ranks::gpu_count()) {
        return memory::print_prediction(&plan, &world);
    }
    let choice = ranks::device(args, &world)?;
    if args.dry_run {
        return dry_run(args, &plan, choice, &world);
    }
    run_plan(args, &plan, choice, world)
}

/// Trains and evaluates a plan, in the directory of the arguments.
pub(super) fn run_plan(
    args: &TrainArgs,
    plan: &TrainPlan,
    choice: DeviceChoice,
    world: World,
) -> Result<()> {
    plan::require_data(plan)?;
    let train = |world: &World, ranks| train_model(args, plan, choice, (world, ranks));
    ranks::run(world, plan, choice, train)
}

/// Trains the model of a plan as one of the ranks.
fn train_model(
    args: &TrainArgs,
    plan: &TrainPlan,
    choice: DeviceChoice,
    (world, mut ranks): (&World, Ranks),
) -> Result<()> {
    // The device and the memory of a step.
    let device = device::open(choice)?;
    memory::reserve(plan, &device, world)?;
    if !ranks.is_leader() {
        return ranks::follow(plan, &device, ranks);
    }

    // A new run, or an unfinished one from its last checkpoint.
    let (start, run_dir) = start::find(args, plan)?;
    if let RunStart::Finished = start {
        note(NOTHING_TO_DO);
        return ranks::dismiss(&mut ranks);
    }
    ranks::admit(&mut ranks)?;

    // The data. Errors in it are found before a directory is created.
    let data = plan.open_data()?;
    let held_out = EvalBatch::of(&data.held_out, plan.config().evaluation.batch_size)?;
    start.check_text(args, &data)?;

    // The trainer: initial weights, or those of the checkpoint.
    let rows = data.train.clone();
    let trainer = match &start {
        RunStart::Resume(Some(checkpoint)) => Trainer::resume(plan.clone(), checkpoint, rows)?,
        _ => Trainer::new(plan.clone(), initial_model(plan)?, rows)?,
    };
    let trainer = trainer.among(ranks)?.to_device(&device)?;
    let run_dir = match run_dir {
        None => start::create(args, plan)?,
        Some(run_dir) => run_dir,
    };
    describe::run(&trainer, &data, &run_dir);

    // The steps.
    let display = Display::choose(args.plain);
    let signals = Signals::catch()?;
    let mut session = Session::new(&run_dir, trainer)?;
    session.stop_on(signals.flag());
    session.set_held_out(data.held_out.rows())?;
    let past = session.take_history();
    let measure = Measure::new(plan, &held_out);
    let mut monitor = Monitor::new(plan, &run_dir, measure, &past)?;
    let mut history = StepHistory::new(plan, &past);
    let mut progress = TrainProgress::new(plan, display, &past);
    let trained = train(&mut session, &mut monitor, &mut history, &mut progress, &signals);
    progress.finish();
    if let Err(error) = trained {
        // The weights of a diverged run are those before the bad steps.
        if matches!(error.downcast_ref(), Some(TrainError::Diverged(_))) {
            session.save_model()?;
        }
        return Err(error);
    }
    let done = session.trainer().done();
    if done < plan.steps() {
        session.interrupt()?;
        return Err(Interrupted::after(done, plan, &run_dir).into());
    }
    let mut trainer = session.finish()?;
    if signals.requested() && !args.no_eval {
        trainer.release_ranks()?;
        return Err(Interrupted::after(done, plan, &run_dir).into());
    }
    // Training is saved to disk, so a signal may end the program now.
    signals.end_immediately();

    // The evaluation and the report.
    let evaluation =
        if args.no_eval { None } else { Some(results::evaluate(measure, &mut trainer, display)?) };
    trainer.release_ranks()?;
    let model = trainer.into_model();
    let summary = results::summarize(plan, &model, &run_dir, &data, &history, evaluation)?;
    results::write(&summary, history.points(), plan, &run_dir)
}

/// Checks everything that a run needs, without training.
fn dry_run(args: &TrainArgs, plan: &TrainPlan, choice: DeviceChoice, world: &World) -> Result<()> {
    let device = device::open(choice)?;
    memory::print_estimate(plan, &device, world)?;
    plan::require_data(plan)?;
    memory::reserve(plan, &device, world)?;
    let start = start::check(args, plan)?;
    let data = plan.open_data()?;
    start.check_text(args, &data)?;
    let verdict = match start {
        RunStart::New => "this run can be trained",
        RunStart::Resume(_) => "this run can be resumed",
        RunStart::Finished => NOTHING_TO_DO,
    };
    describe::verdict(plan, &data, &device, verdict)
}

/// Runs the remaining steps, until a signal asks to stop.
fn train(
    session: &mut Session<'_>,
    monitor: &mut Monitor<'_>,
    history: &mut StepHistory,
    progress: &mut TrainProgress,
    signals: &Signals,
) -> Result<()> {
    let mut slow = SlowRanks::default();
    while !signals.requested() {
        // ------------------------------------------------------------------------- one step -----
        let Some(event) = session.next().transpose()? else { break };
        // ---------------------------------------------------------------------------------------
        let metrics = match event {
            Event::Step(metrics) => metrics,
            Event::Skipped(bad) => {
                progress.note(&format!("{bad}; its rows are skipped"));
                continue;
            }
            Event::RolledBack { bad, to } => {
                progress.note(&format!("{bad}; rolling back to the checkpoint of step {to}"));
                monitor.go_back(to);
                history.go_back(to);
                continue;
            }
        };

        // Periodically: attention and losses on held-out text. The best weights are saved.
        session.trainer().begin("measure on held-out text");
        let monitored = monitor.measure(session, metrics.step)?;
        // The log; periodically, a checkpoint.
        session.trainer().begin("save the step");
        session.keep(Measurements::new(&monitored)?)?;

        for change in slow.changes(session.trainer(), &metrics) {
            progress.note(&change);
        }
        progress.step(&metrics, &monitored);
        history.add(&metrics);
    }
    Ok(())
}
