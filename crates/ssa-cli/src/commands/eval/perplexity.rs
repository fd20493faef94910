//! `ssa eval perplexity`.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use ssa_eval::report::table::{mass_table, results_table};
use ssa_eval::{EvalBatch, MassResult, Perplexity, PerplexityOptions};
use ssa_infer::Budget;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{Method, SparseBudget};
use ssa_report::number::counted;

use crate::args::{DeviceChoice, PerplexityArgs};
use crate::commands::held_out::Subject;
use crate::commands::{check_budget, check_budgets, command_line};
use crate::display::{BatchProgress, Display, print, print_json, render};

/// Default block counts to evaluate.
const DEFAULT_BLOCK_COUNTS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// The output of `--json`.
#[derive(Serialize)]
struct Output<'a> {
    model: String,
    method: Method,
    trained_budget: Option<SparseBudget>,
    data: &'a str,
    device: String,
    command: String,
    baseline_bits_per_byte: Option<f64>,
    seconds: f64,
    #[serde(flatten)]
    perplexity: &'a Perplexity,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    by_mass: &'a [MassResult],
}

pub(super) fn run(args: &PerplexityArgs, device: DeviceChoice) -> Result<()> {
    let rule: SelectionRule = args.held_out.selection;
    let budgets: Vec<Budget> = args.budgets.iter().flat_map(|list| list.0.clone()).collect();
    budgets.iter().try_for_each(|&budget| check_budget(budget, rule))?;
    let subject = Subject::load(&args.held_out, device)?;
    let config = subject.model.config();
    // Attention sparsity of full attention is measured at the model's own budget.
    check_budgets(&[config.budget], rule)?;
    let (budgets, mass_budgets) = choose(&budgets, config.budget, rule)?;

    let batches = &subject.batches;
    let sparsity_batches = EvalBatch::covering(batches, args.analysis_tokens).len();
    let options = PerplexityOptions { budgets, rule, sparsity_batches };
    let start = Instant::now();
    let mut progress = BatchProgress::new(Display::choose(false), "evaluating", batches.len());
    let result =
        ssa_eval::evaluate_budgets(&subject.model, batches, &options, &mass_budgets, &mut |done| {
            progress.done(done)
        });
    progress.finish();
    let (perplexity, by_mass) = result?;
    let seconds = start.elapsed().as_secs_f64();

    let trained = subject.trained_budget();
    if args.held_out.json {
        return print_json(&Output {
            model: args.held_out.model.display().to_string(),
            method: config.attention_method,
            trained_budget: trained,
            data: &subject.source,
            device: subject.model.device().to_string(),
            command: command_line(),
            baseline_bits_per_byte: subject.baseline_bits_per_byte,
            seconds,
            perplexity: &perplexity,
            by_mass: &by_mass,
        });
    }
    print(&render(&results_table(&perplexity, subject.baseline_bits_per_byte, trained)))?;
    if !by_mass.is_empty() {
        print(&render(&mass_table(&by_mass)))?;
    }
    print(&subject.caption())?;
    let bytes = counted(perplexity.bytes, "byte");
    print(&format!("{bytes} in {}, {seconds:.1} s", counted(perplexity.rows, "row")))
}

/// The budgets of blocks and those by attention mass. The latter alone are compared with the
/// trained budget.
fn choose(
    budgets: &[Budget],
    trained: SparseBudget,
    rule: SelectionRule,
) -> Result<(Vec<SparseBudget>, Vec<Budget>)> {
    let blocks = budgets.iter().filter_map(|&budget| match budget {
        Budget::Blocks(budget) => Some(budget),
        Budget::Mass { .. } => None,
    });
    let blocks: Vec<SparseBudget> = blocks.collect();
    let by_mass =
        budgets.iter().copied().filter(|budget| matches!(budget, Budget::Mass { .. })).collect();
    let blocks = match (blocks.is_empty(), budgets.is_empty()) {
        (true, true) => default_budgets(trained, rule)?,
        (true, false) => vec![trained],
        (false, _) => blocks,
    };
    Ok((blocks, by_mass))
}

/// Doublings of the receptive field at the training block size, and the training budget.
fn default_budgets(trained: SparseBudget, rule: SelectionRule) -> Result<Vec<SparseBudget>> {
    let mut counts = DEFAULT_BLOCK_COUNTS.to_vec();
    counts.push(trained.block_counts());
    counts.sort_unstable();
    counts.dedup();
    let budgets = counts.into_iter().map(|counts| SparseBudget::new(trained.block_size(), counts));
    let mut budgets = budgets.collect::<Result<Vec<_>, _>>()?;
    budgets.retain(|budget| budget.refused_by(rule).is_none());
    Ok(budgets)
}
