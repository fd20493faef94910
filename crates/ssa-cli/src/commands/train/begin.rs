//! Which run to work on: a new one, or one that was begun before.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ssa_data::Corpus;
use ssa_model::AttentionMode;
use ssa_train::config::WeightedCorpus;
use ssa_train::{Checkpoint, Existing, RunData, RunDir, TrainConfig, TrainPlan, Trainer};

use crate::args::TrainArgs;
use crate::display::note;
use crate::exit::UsageError;

/// Where runs go that are not named.
const RUNS: &str = "runs";

/// A run that has steps or its evaluation before it.
pub(super) struct Beginning {
    plan: TrainPlan,
    /// Keys in which a run that was begun may differ from what it was.
    allowed: Vec<String>,
    begun: Option<Begun>,
}

/// A run that was begun.
struct Begun {
    run_dir: RunDir,
    /// None if it ended before the first one.
    checkpoint: Option<Checkpoint>,
}

impl Beginning {
    /// The run that the arguments mean, with the plan that they give; none if it is finished. One
    /// that goes on is changed here: it takes the plan's configuration.
    pub(super) fn find(args: &TrainArgs, plan: TrainPlan) -> Result<Option<Self>> {
        if let Some(path) = &args.resume {
            return Self::go_on(plan, RunDir::open(path)?, args);
        }
        let unfinished = match &args.run_dir {
            Some(path) if !args.overwrite && RunDir::holds_unfinished_run(path) => {
                Some(RunDir::open(path)?)
            }
            Some(_) => None,
            None => RunDir::open_unfinished(Path::new(RUNS), plan.config())?,
        };
        let Some(run_dir) = unfinished else {
            return Ok(Some(Self { plan, allowed: vec![], begun: None }));
        };
        let another =
            if args.run_dir.is_none() { "; for another one name a --run-dir" } else { "" };
        note(&format!(
            "{} holds an unfinished run, which goes on{another}",
            run_dir.path().display()
        ));
        Self::go_on(plan, run_dir, args)
    }

    fn go_on(plan: TrainPlan, run_dir: RunDir, args: &TrainArgs) -> Result<Option<Self>> {
        let Some(point) = run_dir.resume(plan.config(), &args.allow_change)? else {
            return Ok(None);
        };
        let checkpoint = point.checkpoint;
        let allowed = args.allow_change.clone();
        Ok(Some(Self { plan, allowed, begun: Some(Begun { run_dir, checkpoint }) }))
    }

    /// The trainer where the run stands.
    pub(super) fn trainer(&self, data: &RunData) -> Result<Trainer> {
        let rows = data.train.clone();
        let plan = self.plan.clone();
        match self.begun.as_ref().and_then(|begun| begun.checkpoint.as_ref()) {
            None => {
                let model = plan.initial_model()?;
                Ok(Trainer::new(plan, model, rows)?)
            }
            Some(checkpoint) => {
                checkpoint.check_text(&rows, &self.allowed)?;
                let held_out = data.held_out.parts.iter().map(|part| &part.rows);
                checkpoint.check_held_out(held_out, &self.allowed)?;
                Ok(Trainer::resume(plan, checkpoint, rows)?)
            }
        }
    }

    /// The directory of the run, which is made if the run is new.
    pub(super) fn into_run_dir(self, args: &TrainArgs) -> Result<RunDir> {
        if let Some(begun) = self.begun {
            return Ok(begun.run_dir);
        }
        let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
        let run_dir = match &args.run_dir {
            Some(path) => RunDir::create_named(path, existing)?,
            None => RunDir::create(Path::new(RUNS), &self.plan.config().run.name)?,
        };
        run_dir.write_config(self.plan.config())?;
        Ok(run_dir)
    }
}

/// The plan that the arguments give. Nothing is changed yet.
pub(super) fn plan(args: &TrainArgs) -> Result<TrainPlan> {
    TrainConfig::check_keys(&args.allow_change, "--allow-change")?;
    let file = match &args.resume {
        Some(run) => RunDir::config_path_of(run)?,
        // Clap demands one or the other.
        None => args.config.clone().unwrap_or_default(),
    };
    let mut config = TrainConfig::load(&file, &args.overrides)?;
    if !args.data.is_empty() {
        let (corpora, paths) = args.data.iter().cloned().partition(|path| Corpus::is_at(path));
        let corpora: Vec<PathBuf> = corpora;
        config.data.paths = paths;
        config.data.corpora =
            corpora.into_iter().map(|path| WeightedCorpus { path, weight: 1.0 }).collect();
    }
    let directory = match &args.resume {
        Some(run) => RunDir::working_directory_of(run)?,
        None => PathBuf::new(),
    };
    let plan = TrainPlan::in_directory(config, &directory)?;
    let method = plan.config().objective.method;
    if !method.has_mode(AttentionMode::Full) && plan.budgets().is_empty() && !args.no_eval {
        return Err(UsageError(format!(
            "method {method} has no full attention, so there is nothing to evaluate without a \
             budget\nhint: add one to evaluation.budgets, or pass --no-eval"
        ))
        .into());
    }
    Ok(plan)
}
