//! `ssa eval`.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use ssa_eval::report::table::results_table;
use ssa_eval::{EvalBatch, Perplexity, PerplexityOptions};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{Method, SparseBudget};

use super::held_out::Subject;
use super::{check_budgets, command_line};
use crate::args::{DeviceChoice, PerplexityArgs};
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
}

pub(crate) fn perplexity(args: &PerplexityArgs, device: DeviceChoice) -> Result<()> {
    let rule: SelectionRule = args.held_out.selection;
    check_budgets(&args.budgets, rule)?;
    let subject = Subject::load(&args.held_out, device)?;
    let config = subject.model.config();
    // Attention sparsity of full attention is measured at the model's own budget.
    check_budgets(&[config.budget], rule)?;
    let budgets = if args.budgets.is_empty() {
        default_budgets(config.budget, rule)?
    } else {
        args.budgets.clone()
    };

    let batches = &subject.batches;
    let sparsity_batches = EvalBatch::covering(batches, args.analysis_tokens).len();
    let options = PerplexityOptions { budgets, rule, sparsity_batches };
    let start = Instant::now();
    let mut progress = BatchProgress::new(Display::choose(false), "evaluating", batches.len());
    let result =
        ssa_eval::perplexity(&subject.model, batches, &options, &mut |done| progress.done(done));
    progress.finish();
    let perplexity = result?;
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
        });
    }
    print(&render(&results_table(&perplexity, subject.baseline_bits_per_byte, trained)))?;
    print(&subject.caption())?;
    print(&format!("{} bytes in {} rows, {seconds:.1} s", perplexity.bytes, perplexity.rows))
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
