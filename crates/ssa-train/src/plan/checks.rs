//! Checks of a configuration, in addition to those of the model's own configuration.

use std::collections::HashSet;

use ssa_model::SparseBudget;

use crate::config::{ConfigError, TrainConfig};
use crate::schedule::ScheduleShape;

type Check = Result<(), ConfigError>;

/// Refuses the first invalid value.
pub(super) fn check(config: &TrainConfig) -> Check {
    check_run(config)?;
    check_attention(config)?;
    check_data(config)?;
    check_objective(config)?;
    check_training(config)?;
    check_optimizer(config)?;
    check_checkpoint(config)?;
    check_evaluation(config)?;
    check_monitoring(config)
}

fn require(holds: bool, key: &str, value: impl ToString, expected: impl Into<String>) -> Check {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Value {
            key: key.to_owned(),
            value: value.to_string(),
            expected: expected.into(),
        })
    }
}

/// The largest number of tokens of a row.
const LONGEST_ROW: usize = 1 << 24;
/// The largest number of rows of a step.
const MOST_ROWS: usize = 1 << 20;
/// The largest number of groups of micro-batches.
const MOST_GROUPS: usize = 4096;
/// The largest count of steps or tokens.
const LARGEST_COUNT: usize = 1 << 40;

fn within(minimum: usize, maximum: usize, key: &str, value: usize) -> Check {
    require(value >= minimum, key, value, format!("at least {minimum}"))?;
    require(value <= maximum, key, value, format!("at most {maximum}"))
}

/// A count of at least 1.
fn count(key: &str, value: usize) -> Check {
    within(1, LARGEST_COUNT, key, value)
}

/// A count that may be 0.
fn count_or_zero(key: &str, value: usize) -> Check {
    within(0, LARGEST_COUNT, key, value)
}

/// The number is in the range and stays finite after conversion to `f32`.
fn number(key: &str, value: f64, range: impl Fn(f64) -> bool, expected: &str) -> Check {
    require(range(value) && (value as f32).is_finite(), key, value, expected)
}

fn share(key: &str, value: f64) -> Check {
    number(key, value, |value| (0.0..=1.0).contains(&value), "a fraction from 0 to 1")
}

fn positive(key: &str, value: f64) -> Check {
    number(key, value, |value| value as f32 > 0.0, "a positive number (at least 1e-45, below 3e38)")
}

fn check_run(config: &TrainConfig) -> Check {
    let name = &config.run.name;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    require(
        name.bytes().all(fits) && !name.is_empty() && !name.starts_with('.'),
        "run.name",
        format!("{name:?}"),
        "letters, digits, `-`, `_` and `.`, with no dot at the start: it becomes part of a path",
    )?;
    let seed = config.run.seed;
    require(
        i64::try_from(seed).is_ok(),
        "run.seed",
        seed,
        "a number below 2^63, the largest TOML can hold",
    )
}

fn check_attention(config: &TrainConfig) -> Check {
    let (model, rule) = (&config.model, config.objective.selection);
    // The checks of the model cover the sizes themselves.
    let Ok(budget) = SparseBudget::new(model.block_size, model.block_counts) else {
        return Ok(());
    };
    let Some((part, expected)) = budget.refused_by(rule) else { return Ok(()) };
    let value = if part == "block_size" { model.block_size } else { model.block_counts };
    require(false, &format!("model.{part}"), value, with_reference(&expected))
}

fn with_reference(expected: &str) -> String {
    format!(
        "{expected} with objective.selection = \"reference\"\nhint: change it, or set \
         objective.selection = \"exact\""
    )
}

fn check_data(config: &TrainConfig) -> Check {
    let data = &config.data;
    require(
        data.sequence_length >= 2,
        "data.sequence_length",
        data.sequence_length,
        "at least 2: a row needs a token and its successor",
    )?;
    within(2, LONGEST_ROW, "data.sequence_length", data.sequence_length)?;
    require(
        data.paths.is_empty() || data.corpora.is_empty(),
        "data.corpora",
        "given together with data.paths",
        "only one of the two\nhint: prepare the text as a corpus too, and mix corpora by weight",
    )?;
    require(
        data.valid_paths.is_empty() || data.valid_corpora.is_empty(),
        "data.valid_corpora",
        "given together with data.valid_paths",
        "only one of the two",
    )?;
    if let Some(positions) = config.model.max_position_embeddings {
        require(
            data.sequence_length <= positions,
            "data.sequence_length",
            data.sequence_length,
            format!(
                "at most model.max_position_embeddings ({positions})\nhint: raise that, or shorten \
                 the rows"
            ),
        )?;
    }
    number(
        "data.held_out_fraction",
        data.held_out_fraction,
        |share| share > 0.0 && share < 1.0,
        "a fraction between 0 and 1, both excluded: training and evaluation both need text",
    )
}

fn check_objective(config: &TrainConfig) -> Check {
    let objective = &config.objective;
    number(
        "objective.alpha",
        objective.alpha,
        |alpha| alpha >= 0.0,
        "a non-negative number below 3e38",
    )?;
    count_or_zero("objective.alpha_warmup_steps", objective.alpha_warmup_steps)?;
    share("objective.full_ratio", objective.full_ratio)?;
    number(
        "objective.z_loss",
        objective.z_loss,
        |weight| weight >= 0.0,
        "a non-negative number below 3e38",
    )
}

fn check_training(config: &TrainConfig) -> Check {
    let training = &config.training;
    count("training.steps", training.steps)?;
    within(1, MOST_ROWS, "training.batch_size", training.batch_size)?;
    check_micro_batches(config)?;
    count("training.log_every", training.log_every)?;
    count("training.max_bad_steps", training.max_bad_steps)
}

fn check_checkpoint(config: &TrainConfig) -> Check {
    let checkpoint = &config.checkpoint;
    // Keeps the time within the range of the clock.
    let expected = "a number of minutes from 0 to 1e9";
    number(
        "checkpoint.every_minutes",
        checkpoint.every_minutes,
        |m| (0.0..=1e9).contains(&m),
        expected,
    )?;
    count_or_zero("checkpoint.every_steps", checkpoint.every_steps)?;
    count_or_zero("checkpoint.keep_every", checkpoint.keep_every)?;
    count("checkpoint.keep_last", checkpoint.keep_last)
}

fn check_micro_batches(config: &TrainConfig) -> Check {
    let training = &config.training;
    let (full, ramp) = (training.batch_size, training.batch_ramp_steps);
    if let Some(start) = training.batch_size_start {
        require(
            (1..=full).contains(&start),
            "training.batch_size_start",
            start,
            format!("a number from 1 to training.batch_size ({full})"),
        )?;
        count("training.batch_ramp_steps", ramp)?;
    } else {
        let expected = "0 without training.batch_size_start\nhint: set training.batch_size_start";
        require(ramp == 0, "training.batch_ramp_steps", ramp, expected)?;
    }
    let groups = training.groups;
    let expected = format!("a power of two of at most {MOST_GROUPS}");
    let holds = groups.is_power_of_two() && groups <= MOST_GROUPS;
    require(holds, "training.groups", groups, expected)?;
    let sizes = [
        ("training.batch_size_start", training.batch_size_start),
        ("training.batch_size", Some(full)),
    ];
    for (key, size) in sizes.into_iter().filter_map(|(key, size)| Some((key, size?))) {
        let (source, rows) = match training.micro_batch_size {
            Some(rows) => ("training.micro_batch_size", rows),
            None => {
                let rows = training.batch_size_start.unwrap_or(full);
                let expected = format!("a divisor of {key} ({size})");
                require(rows.is_multiple_of(groups), "training.groups", groups, expected)?;
                let divided = "training.micro_batch_size";
                let source = if groups == 1 { "training.batch_size_start" } else { divided };
                (source, rows / groups)
            }
        };
        let expected = format!("a divisor of {key} ({size})");
        require(rows > 0 && size.is_multiple_of(rows), source, rows, expected)?;
        let micro_batches = size / rows;
        let expected = format!("a divisor of the {micro_batches} micro-batches of {key} ({size})");
        let holds = micro_batches.is_multiple_of(groups);
        require(holds, "training.groups", groups, expected)?;
    }
    Ok(())
}

fn check_optimizer(config: &TrainConfig) -> Check {
    let optimizer = &config.optimizer;
    positive("optimizer.learning_rate", optimizer.learning_rate)?;
    number(
        "optimizer.min_learning_rate",
        optimizer.min_learning_rate,
        |rate| (0.0..=optimizer.learning_rate).contains(&rate),
        &format!("a number from 0 to optimizer.learning_rate ({})", optimizer.learning_rate),
    )?;
    share("optimizer.warmup_fraction", optimizer.warmup_fraction)?;
    if let Some(steps) = optimizer.warmup_steps {
        require(
            steps <= config.training.steps,
            "optimizer.warmup_steps",
            steps,
            format!(
                "at most training.steps ({})\nhint: pass --set optimizer.warmup_steps={} or so, \
                 or train longer",
                config.training.steps,
                config.training.steps / 10
            ),
        )?;
    }
    check_decay(config)?;
    for (key, beta) in [("optimizer.beta1", optimizer.beta1), ("optimizer.beta2", optimizer.beta2)]
    {
        // Checked as f32: a rate that rounds to 1 would never decay and would divide by zero in the
        // bias correction.
        let range = |beta: f64| beta >= 0.0 && (beta as f32) < 1.0;
        number(key, beta, range, "a number from 0 to 1, 1 excluded")?;
    }
    positive("optimizer.eps", optimizer.eps)?;
    number(
        "optimizer.weight_decay",
        optimizer.weight_decay,
        |decay| decay >= 0.0,
        "a non-negative number",
    )?;
    positive("optimizer.max_grad_norm", optimizer.max_grad_norm)
}

/// The decay of `wsd` begins after the warm-up.
fn check_decay(config: &TrainConfig) -> Check {
    let optimizer = &config.optimizer;
    share("optimizer.decay_fraction", optimizer.decay_fraction)?;
    let schedule = super::schedule(config);
    require(
        optimizer.schedule != ScheduleShape::Wsd
            || schedule.warmup + schedule.decay <= schedule.steps,
        "optimizer.decay_fraction",
        optimizer.decay_fraction,
        format!(
            "a fraction of at most the {} steps after the warm-up",
            schedule.steps.saturating_sub(schedule.warmup)
        ),
    )
}

fn check_monitoring(config: &TrainConfig) -> Check {
    let (monitoring, method) = (&config.monitoring, config.objective.method);
    count_or_zero("monitoring.probe_every", monitoring.probe_every)?;
    count_or_zero("monitoring.validate_every", monitoring.validate_every)?;
    count("monitoring.probe_tokens", monitoring.probe_tokens)?;
    count("monitoring.validation_tokens", monitoring.validation_tokens)?;
    monitoring.peak_tflops.map_or(Ok(()), |peak| positive("monitoring.peak_tflops", peak))?;
    require(
        monitoring.best_by.is_none_or(|mode| method.has_mode(mode)),
        "monitoring.best_by",
        "full",
        format!("sparse with objective.method = \"{method}\", which has no full attention"),
    )
}

fn check_evaluation(config: &TrainConfig) -> Check {
    let evaluation = &config.evaluation;
    let mut seen = HashSet::new();
    for budget in &evaluation.budgets {
        let key = "evaluation.budgets";
        require(seen.insert(*budget), key, format!("{budget} twice"), "each budget once")?;
        if let Some((part, expected)) = budget.refused_by(config.objective.selection) {
            require(false, key, budget, with_reference(&format!("{part} {expected}")))?;
        }
    }
    within(1, MOST_ROWS, "evaluation.batch_size", evaluation.batch_size)?;
    count("evaluation.tokens", evaluation.tokens)?;
    count("evaluation.analysis_tokens", evaluation.analysis_tokens)
}
