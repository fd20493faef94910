//! The plan from the arguments of `ssa train`.

use std::path::PathBuf;

use anyhow::Result;
use ssa_data::{Corpus, TrainSource};
use ssa_model::{AttentionMode, parameter_count};
use ssa_train::config::WeightedCorpus;
use ssa_train::{RunDir, TrainConfig, TrainPlan};

use crate::args::TrainArgs;
use crate::exit::UsageError;

/// The built-in text has about 2 million tokens. A model with more parameters than this would
/// memorize it: the user probably forgot to name data.
const MOST_PARAMETERS_FOR_BUILT_IN_TEXT: u64 = 100_000_000;

/// Reads the configuration, applies the arguments and checks the result.
pub(super) fn load(args: &TrainArgs) -> Result<TrainPlan> {
    TrainConfig::check_keys(&args.allow_change, "--allow-change")?;
    let path = config_path(args)?;
    let mut config = match &args.resume {
        Some(_) => TrainConfig::load(&path, &args.overrides)?,
        None => TrainConfig::load_new(&path, &args.overrides)?,
    };
    if !args.data.is_empty() {
        let (corpora, paths): (Vec<PathBuf>, _) =
            args.data.iter().cloned().partition(|path| Corpus::is_at(path));
        config.data.paths = paths;
        config.data.corpora =
            corpora.into_iter().map(|path| WeightedCorpus { path, weight: 1.0 }).collect();
    }
    let directory = match &args.resume {
        Some(run) => RunDir::working_directory_of(run)?,
        None => PathBuf::new(),
    };
    let plan = TrainPlan::in_directory(config, &directory)?;
    if !args.no_eval {
        check_evaluation(&plan)?;
    }
    Ok(plan)
}

fn config_path(args: &TrainArgs) -> Result<PathBuf> {
    if let Some(run) = &args.resume {
        return Ok(RunDir::config_path_of(run)?);
    }
    if let Some(config) = &args.config {
        return Ok(config.clone());
    }
    let is_toml = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let hint = match args.data.iter().find(is_toml).map(|path| path.display()) {
        Some(config) => format!(
            "--data takes every path after it, also {config}; put the configuration first: ssa \
             train {config} --data ..."
        ),
        None => "name one, such as configs/demo.toml, or resume a run with --resume".to_owned(),
    };
    Err(UsageError(format!("ssa train: no configuration\nhint: {hint}")).into())
}

/// Checks that there is something to evaluate: a method without full attention needs a budget.
pub(crate) fn check_evaluation(plan: &TrainPlan) -> Result<()> {
    if plan.objective().attention.method.has_mode(AttentionMode::Full) || !plan.budgets().is_empty()
    {
        return Ok(());
    }
    let message = "`evaluation.budgets` is empty: method nsa has no full attention, so there is \
                   nothing to evaluate\nhint: add a budget, or pass --no-eval";
    Err(UsageError(message.to_owned()).into())
}

/// Refuses to train a large model on the built-in text.
pub(crate) fn require_data(plan: &TrainPlan) -> Result<()> {
    let parameters = parameter_count(plan.model());
    if plan.config().dataset_options().train != TrainSource::BuiltIn
        || parameters <= MOST_PARAMETERS_FOR_BUILT_IN_TEXT
    {
        return Ok(());
    }
    let millions = parameters / 1_000_000;
    Err(UsageError(format!(
        "no data is named, and the built-in text is too small for a model of {millions} million \
         parameters\nhint: name text or corpora with --data, or in data.paths or data.corpora"
    ))
    .into())
}
