//! What generation did, in a few lines or as JSON.

use std::fmt::Write;

use serde::Serialize;
use ssa_infer::{
    FinishReason, GenerationEngine, GenerationRequest, GenerationStatistics, Pass, SequenceId,
};
use ssa_report::number::counted;

use super::Settings;

/// What generation did.
#[derive(Serialize)]
pub(in crate::commands) struct Summary {
    prompt_tokens: usize,
    /// Those that were not in the cache.
    computed_prompt_tokens: usize,
    generated_tokens: usize,
    finish_reason: Option<FinishReason>,
    prefill_seconds: f64,
    prefill_tokens_per_second: Option<f64>,
    decode_seconds: f64,
    decode_tokens_per_second: Option<f64>,
    block_size: Option<usize>,
    /// Blocks that a token read in the sparse pass, on average over layers and key/value heads.
    blocks_read: Option<f64>,
    /// The share of the attention on these blocks, as selection estimates it.
    estimated_mass: Option<f64>,
    drafted_tokens: usize,
    accepted_tokens: usize,
}

impl Summary {
    pub(in crate::commands) fn new(
        engine: &GenerationEngine,
        settings: &Settings,
        request: &GenerationRequest<SequenceId>,
        statistics: &GenerationStatistics,
    ) -> Self {
        let drafts = settings.options.drafts;
        let totals = engine.totals(if drafts > 0 { Pass::Draft } else { Pass::Target });
        let average = |sum: f64| (totals.selections > 0).then(|| sum / totals.selections as f64);
        Self {
            prompt_tokens: request.ids().len() - request.generated().len(),
            computed_prompt_tokens: statistics.prefilled,
            generated_tokens: statistics.generated,
            finish_reason: request.finished(),
            prefill_seconds: statistics.prefill_time.as_secs_f64(),
            prefill_tokens_per_second: statistics.prefill_rate(),
            decode_seconds: statistics.decode_time.as_secs_f64(),
            decode_tokens_per_second: statistics.decode_rate(),
            block_size: settings
                .attention
                .is_sparse(drafts)
                .then_some(settings.attention.page_size),
            blocks_read: average(totals.blocks as f64),
            estimated_mass: average(totals.kept_mass),
            drafted_tokens: statistics.drafted,
            accepted_tokens: statistics.accepted,
        }
    }

    /// The lines for standard error.
    pub(in crate::commands) fn text(&self) -> String {
        let rate = |rate: Option<f64>| match rate {
            Some(rate) if rate < 100.0 => format!(" at {rate:.1} tokens/s"),
            Some(rate) => format!(" at {rate:.0} tokens/s"),
            None => String::new(),
        };
        let end = match self.finish_reason {
            Some(FinishReason::Eos) => "ended by the model",
            Some(FinishReason::Stop) => "stopped",
            Some(FinishReason::Context) => "ended by the model's context",
            Some(FinishReason::MaxTokens) | None => "ended by --max-tokens",
        };
        // The last token of a prompt is always computed, if alone in a step that decodes.
        let cached = self.prompt_tokens.saturating_sub(self.computed_prompt_tokens.max(1));
        let cached = if cached > 0 { format!(" ({cached} cached)") } else { String::new() };
        let mut text = format!(
            "prompt: {}{cached}{}; text: {}{}, {end}",
            counted(self.prompt_tokens, "token"),
            rate(self.prefill_tokens_per_second),
            counted(self.generated_tokens, "token"),
            rate(self.decode_tokens_per_second),
        );
        if let (Some(size), Some(blocks), Some(mass)) =
            (self.block_size, self.blocks_read, self.estimated_mass)
        {
            let mass = 100.0 * mass;
            write!(
                text,
                "\nsparse attention: {blocks:.1} blocks of {size} tokens read, about {mass:.1} % \
                 of the attention"
            )
            .ok();
        }
        if self.drafted_tokens > 0 {
            let share = 100.0 * self.accepted_tokens as f64 / self.drafted_tokens as f64;
            write!(
                text,
                "\ndrafts: {} of {} accepted ({share:.0} %)",
                self.accepted_tokens, self.drafted_tokens
            )
            .ok();
        }
        text
    }
}
