//! The generation loop: several sequences together, with self-speculation.
//!
//! A step computes the pending tokens of every sequence: the rest of a prompt in chunks, then the
//! token drawn last. What a sequence becomes does not depend on the others.
//!
//! **Self-speculation.** Before a step, [`Pass::Draft`] (sparse attention, with the cache of the
//! target) proposes up to `drafts` tokens. They leave the cache again, and the step computes them
//! with [`Pass::Target`], all in one call, which also writes their keys and values, and draws from
//! the target's logits what follows each of them. These tokens are those of a loop without drafts,
//! as long as the drafts agree. So the text is that of the target alone, whether greedy or sampled:
//! a draft only decides how much of a call is used. Sampled drafts agree often because both passes
//! share the noise of a position ([`NoiseKey`](crate::NoiseKey)): with distributions at a total
//! variation of d, at least (1 - d) / (1 + d) of the time (Daliri, Musco and Suresh, "Coupling
//! without communication and drafter-invariant speculative decoding", 2024).

mod engine;
mod model;
mod request;
mod statistics;

use std::ops::ControlFlow;
use std::time::Instant;

pub use engine::GenerationEngine;
pub use model::{CachedModel, Chunk, Pass};
pub use request::{FinishReason, GenerationLimits, GenerationRequest};
pub use statistics::GenerationStatistics;

use crate::Result;

/// How the loop computes. Texts do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationOptions {
    /// The most tokens of a call; a longer prompt is divided.
    pub chunk_tokens: usize,
    /// Tokens drafted before each call; 0 for none.
    pub drafts: usize,
}

/// Sees the tokens as they are generated.
pub trait GenerationObserver {
    /// A part of a prompt was computed: so many tokens of a request are in the cache.
    /// [`ControlFlow::Break`] ends the request.
    fn prefilled(&mut self, request: usize, tokens: usize) -> ControlFlow<()> {
        let _ = (request, tokens);
        ControlFlow::Continue(())
    }

    /// A request got its next token, which does not end the text. [`ControlFlow::Break`] ends the
    /// request after this token.
    fn token(&mut self, request: usize, id: u32) -> ControlFlow<()>;
}

/// Continues all requests until each is finished.
///
/// Afterward the cache holds all but the last token of each sequence, or less.
///
/// # Errors
/// What the model and the sampler say.
pub fn generate<M: CachedModel>(
    model: &mut M,
    requests: &mut [GenerationRequest<M::Sequence>],
    options: &GenerationOptions,
    observer: &mut dyn GenerationObserver,
) -> Result<GenerationStatistics> {
    let mut generation = Generation {
        model,
        requests,
        options,
        observer,
        statistics: GenerationStatistics::default(),
    };
    while generation.step()? {}
    Ok(generation.statistics)
}

struct Generation<'a, M: CachedModel> {
    model: &'a mut M,
    requests: &'a mut [GenerationRequest<M::Sequence>],
    options: &'a GenerationOptions,
    observer: &'a mut dyn GenerationObserver,
    statistics: GenerationStatistics,
}

/// What a step computes of a request.
struct Work {
    request: usize,
    /// Its tokens in the cache.
    cached: usize,
    /// Tokens of the call, without drafts.
    pending: usize,
    /// Whether its next token follows from the call.
    complete: bool,
    drafts: Vec<u32>,
}

impl<M: CachedModel> Generation<'_, M> {
    /// Advances every unfinished request; returns whether there was one.
    fn step(&mut self) -> Result<bool> {
        let start = Instant::now();
        let mut work = self.schedule()?;
        if work.is_empty() {
            return Ok(false);
        }
        let decoding = work.iter().all(|work| work.pending == 1 && work.complete);
        self.draft(&mut work)?;
        let drawn = self.compute(&work, decoding)?;
        let generated = self.statistics.generated;
        self.accept(&work, &drawn)?;
        let pending = work.iter().map(|work| work.pending).sum();
        let generated = self.statistics.generated - generated;
        self.statistics.add_step(decoding, pending, generated, start.elapsed());
        Ok(true)
    }

    /// The next tokens of every request: those that wait for one token first, so that a long prompt
    /// does not hold them up.
    fn schedule(&self) -> Result<Vec<Work>> {
        let mut work = Vec::new();
        for (index, request) in self.requests.iter().enumerate() {
            if request.finished.is_none() {
                let cached = self.model.cached(request.sequence)?;
                work.push((request.ids.len() - cached, index, cached));
            }
        }
        work.sort_unstable();
        let mut room = self.options.chunk_tokens.max(work.len());
        let mut waiting = work.len();
        let scheduled = work.into_iter().map(|(tokens, request, cached)| {
            waiting -= 1;
            let pending = tokens.min(room - waiting);
            room -= pending;
            Work { request, cached, pending, complete: pending == tokens, drafts: Vec::new() }
        });
        Ok(scheduled.collect())
    }

    /// Lets requests that wait for one token only be drafted on.
    fn draft(&mut self, work: &mut [Work]) -> Result<()> {
        for drafted in 0..self.options.drafts {
            // The last token of a request comes from the target, and nothing follows its end.
            let more = |work: &&mut Work| {
                let request = &self.requests[work.request];
                let ended = work.drafts.last().is_some_and(|&id| request.is_eos(id));
                work.pending == 1
                    && work.complete
                    && work.drafts.len() == drafted
                    && request.remaining() > 1
                    && !ended
            };
            let mut drafting: Vec<&mut Work> = work.iter_mut().filter(more).collect();
            if drafting.is_empty() {
                break;
            }
            let chunks: Vec<_> = drafting
                .iter()
                .map(|work| self.requests[work.request].chunk(work.cached + drafted, 1, 1))
                .collect();
            let continues = drafted + 1 < self.options.drafts
                && drafting.iter().all(|work| self.requests[work.request].remaining() > 2);
            let ids = self.model.forward(&chunks, Pass::Draft, continues)?;
            for (work, id) in drafting.iter_mut().zip(ids) {
                self.requests[work.request].ids.push(id);
                work.drafts.push(id);
            }
        }
        for work in work.iter().filter(|work| !work.drafts.is_empty()) {
            self.model.truncate(self.requests[work.request].sequence, work.cached)?;
            self.statistics.drafted += work.drafts.len();
        }
        Ok(())
    }

    /// The tokens that follow, of all requests. In a step that decodes, these are what the next
    /// step computes, unless a text ends or drafts come first.
    fn compute(&mut self, work: &[Work], decoding: bool) -> Result<Vec<u32>> {
        let goes_on = |work: &Work| self.requests[work.request].remaining() > 1;
        let continues = decoding && self.options.drafts == 0 && work.iter().all(goes_on);
        let chunk = |work: &Work| {
            let tokens = work.pending + work.drafts.len();
            self.requests[work.request].chunk(work.cached, tokens, work.draws())
        };
        let chunks: Vec<_> = work.iter().map(chunk).collect();
        self.model.forward(&chunks, Pass::Target, continues)
    }

    /// Takes the tokens that follow, of all requests.
    fn accept(&mut self, work: &[Work], drawn: &[u32]) -> Result<()> {
        let mut drawn = drawn.iter().copied();
        for work in work {
            let drawn: Vec<u32> = drawn.by_ref().take(work.draws()).collect();
            self.accept_request(work, &drawn)?;
        }
        Ok(())
    }

    /// Takes the tokens that follow of one request, as long as the drafts agree.
    fn accept_request(&mut self, work: &Work, drawn: &[u32]) -> Result<()> {
        let request = &mut self.requests[work.request];
        request.ids.truncate(request.ids.len() - work.drafts.len());
        if work.pending > 1 || !work.complete {
            let computed = work.cached + work.pending;
            if self.observer.prefilled(work.request, computed).is_break() {
                request.finished = Some(FinishReason::Stop);
            }
        }
        let mut drafts = work.drafts.iter();
        for &id in drawn {
            if request.finished.is_some() {
                break;
            }
            request.accept(id);
            self.statistics.generated += 1;
            if request.finished != Some(FinishReason::Eos)
                && self.observer.token(work.request, id).is_break()
            {
                request.finished = Some(FinishReason::Stop);
            }
            if drafts.next() != Some(&id) {
                break;
            }
            self.statistics.accepted += 1;
        }
        // The last token is computed next; drafts that differ leave the cache.
        let kept = request.ids.len() - 1;
        if work.cached + work.pending + work.drafts.len() > kept {
            self.model.truncate(request.sequence, kept)?;
        }
        Ok(())
    }
}

impl Work {
    /// Tokens that the call draws.
    fn draws(&self) -> usize {
        if self.complete { 1 + self.drafts.len() } else { 0 }
    }
}

#[cfg(test)]
mod tests;
