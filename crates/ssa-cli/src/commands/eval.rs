//! `ssa eval`.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use ssa_eval::report::table::results_table;
use ssa_eval::{EvalBatch, Perplexity, PerplexityOptions};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{Method, SparseBudget};

use super::check_budgets;
use super::held_out::HeldOut;
use crate::args::{DeviceChoice, PerplexityArgs};
use crate::display::{BatchProgress, Display, print, print_json, render};

/// Block counts that are evaluated unless budgets are named.
const DEFAULT_BLOCK_COUNTS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// What `--json` prints.
#[derive(Serialize)]
struct Output<'a> {
    model: String,
    method: Method,
    trained_budget: SparseBudget,
    data: &'a str,
    baseline_bits_per_byte: Option<f64>,
    seconds: f64,
    #[serde(flatten)]
    perplexity: &'a Perplexity,
}

pub(crate) fn perplexity(args: &PerplexityArgs, device: DeviceChoice) -> Result<()> {
    let rule: SelectionRule = args.held_out.selection.into();
    check_budgets(&args.budgets, rule)?;
    let held_out = HeldOut::load(&args.held_out, device)?;
    let trained = held_out.model.config().trained_budget();
    let budgets = if args.budgets.is_empty() {
        default_budgets(trained, rule)?
    } else {
        args.budgets.clone()
    };
    check_budgets(&budgets, rule)?;

    let batches = &held_out.batches;
    let sparsity_batches = EvalBatch::covering(batches, args.analysis_tokens).len();
    let options = PerplexityOptions { budgets, rule, sparsity_batches };
    let start = Instant::now();
    let mut progress = BatchProgress::new(Display::choose(false), "evaluating", batches.len());
    let result =
        ssa_eval::perplexity(&held_out.model, batches, &options, &mut |done| progress.done(done));
    progress.finish();
    let perplexity = result?;
    let seconds = start.elapsed().as_secs_f64();

    if args.held_out.json {
        return print_json(&Output {
            model: args.held_out.model.display().to_string(),
            method: held_out.model.config().attention_method,
            trained_budget: trained,
            data: &held_out.source,
            baseline_bits_per_byte: held_out.baseline_bits_per_byte,
            seconds,
            perplexity: &perplexity,
        });
    }
    print(&render(&results_table(&perplexity, held_out.baseline_bits_per_byte, Some(trained))))?;
    print(&format!("{} bytes in {} rows, {seconds:.1} s", perplexity.bytes, perplexity.rows))
}

/// Doublings of the receptive field at the trained block size, and the trained budget.
fn default_budgets(trained: SparseBudget, rule: SelectionRule) -> Result<Vec<SparseBudget>> {
    let most = if rule == SelectionRule::Reference { trained.block_size() } else { usize::MAX };
    let mut counts = DEFAULT_BLOCK_COUNTS.to_vec();
    counts.retain(|&counts| counts <= most);
    counts.push(trained.block_counts());
    counts.sort_unstable();
    counts.dedup();
    counts.into_iter().map(|counts| Ok(SparseBudget::new(trained.block_size(), counts)?)).collect()
}
