//! A step that runs before it is asked for.
//!
//! A step draws its tokens on the GPU, so the next step needs nothing from the host. It is queued
//! before the host reads what the first one drew. If the next call asks for just this step, its
//! results are already on their way; any other call drops it. What it wrote is then past the end of
//! its sequences, where the next tokens overwrite it.

use ssa_kernels::kv_cache::SequenceId;
use ssa_kernels::ops::sampling::Sampler;

use super::Engine;
use super::draw_request::DrawRequest;
use crate::step::StepResults;
use crate::{CallOptions, Draw, FilledBy, Result};

/// Tokens that are reserved for steps that run ahead: page tables are set anew after so many.
pub(super) const RESERVED_TOKENS: usize = 64;

/// A step that was queued before it was asked for. Its sequences hold more tokens in the cache than
/// they have.
pub(super) struct StepAhead {
    sequences: Vec<Expected>,
    options: CallOptions,
    results: StepResults,
}

/// What the next call is expected to ask for, of one sequence.
struct Expected {
    id: SequenceId,
    token: u32,
    sampler: Sampler,
    vocabulary: usize,
}

impl StepAhead {
    /// The step after one that drew `tokens` for some sequences.
    pub(super) fn new(
        requests: &[DrawRequest<'_>],
        tokens: &[u32],
        options: &CallOptions,
        results: StepResults,
    ) -> Self {
        let expected = |(&DrawRequest { id, draw, .. }, &token)| {
            let Draw { sampler, vocabulary } = draw;
            Expected { id, token, sampler: sampler.clone(), vocabulary }
        };
        let sequences = requests.iter().zip(tokens).map(expected).collect();
        Self { sequences, options: *options, results }
    }

    /// Whether the step is the one that is asked for.
    fn is_for(&self, requests: &[DrawRequest<'_>], options: &CallOptions) -> bool {
        let same = |(expected, request): (&Expected, &DrawRequest<'_>)| {
            let &Expected { id, token, ref sampler, vocabulary } = expected;
            *request == DrawRequest { id, ids: &[token], draw: Draw { sampler, vocabulary } }
        };
        self.options == *options
            && self.sequences.len() == requests.len()
            && self.sequences.iter().zip(requests).all(same)
    }
}

impl Engine {
    /// The results of the step that ran ahead if it is the one that is asked for; any other is
    /// dropped.
    pub(super) fn take_ahead(
        &mut self,
        requests: &[DrawRequest<'_>],
        options: &CallOptions,
    ) -> Result<Option<StepResults>> {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.is_for(requests, options)) {
            return Ok(self.ahead.take().map(|ahead| ahead.results));
        }
        self.settle_ahead()?;
        Ok(None)
    }

    /// Drops a step that ran ahead, so that the cache holds the tokens of the sequences and no
    /// others.
    pub(super) fn settle_ahead(&mut self) -> Result<()> {
        let Some(ahead) = self.ahead.take() else { return Ok(()) };
        for Expected { id, .. } in ahead.sequences {
            let tokens = self.tokens(id).len();
            self.cache.truncate(id, tokens)?;
        }
        Ok(())
    }

    /// Records that the tokens of requests are in the cache.
    pub(super) fn add_tokens(&mut self, requests: &[DrawRequest<'_>], filled_by: FilledBy) {
        for &DrawRequest { id, ids, .. } in requests {
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.extend(ids, filled_by);
            }
        }
    }
}
