//! Continuations of shared contexts.

use ssa_infer::{CallOptions, Engine, Logits, ScoredChunk, SequenceId};

use super::encode::Continuation;
use super::request::{PreparedDocument, Request};
use super::size::Size;
use crate::Result;

/// Continuations of one context.
struct Group<'a> {
    context: &'a [u32],
    /// With their document and their place in it.
    continuations: Vec<([usize; 2], &'a [u32])>,
}

/// The continuations of some documents, by context, and their scores.
pub(super) struct Scored<'a> {
    groups: Vec<Group<'a>>,
    /// Log-likelihood and greedy flag of every continuation.
    pub(super) by_document: Vec<Vec<(f64, bool)>>,
}

impl<'a> Scored<'a> {
    pub(super) fn of(documents: &[&'a PreparedDocument]) -> Self {
        let mut scored = Self { groups: Vec::new(), by_document: Vec::new() };
        for (document, prepared) in documents.iter().enumerate() {
            let first = scored.groups.len();
            let continuations = prepared.requests.iter().flat_map(|request| match request {
                Request::Continuation { tokens, .. } => std::slice::from_ref(tokens),
                Request::Rolling { windows, .. } => windows.as_slice(),
                Request::Generation { .. } => &[],
            });
            let mut count = 0;
            for Continuation { context, tokens } in continuations {
                let continuation = ([document, count], tokens.as_slice());
                count += 1;
                // One token is not worth sharing, and windows that begin alike stay apart.
                let mut groups = scored.groups[first..].iter_mut();
                match groups.find(|group| context.len() > 1 && group.context == context) {
                    Some(group) => group.continuations.push(continuation),
                    None => {
                        scored.groups.push(Group { context, continuations: vec![continuation] })
                    }
                }
            }
            scored.by_document.push(vec![(f64::NAN, false); count]);
        }
        scored
    }

    /// Scores all groups: in a call as many as fit into the cache, of at most `most` sequences.
    pub(super) fn score(
        &mut self,
        engine: &mut Engine,
        options: &CallOptions,
        most: usize,
    ) -> Result<()> {
        let (page_size, capacity) = (engine.cache().shape().page_size, engine.cache().capacity());
        let mut groups = self.groups.as_slice();
        while !groups.is_empty() {
            let mut size = Size::default();
            let fitting = groups.iter().take_while(|group| {
                size = size.and(group.size(page_size));
                size.tokens <= capacity && size.sequences <= most
            });
            // A group always fits: the capacity is that of the largest document.
            let count = fitting.count().max(1);
            score_groups(&groups[..count], &mut self.by_document, engine, options)?;
            groups = &groups[count..];
        }
        Ok(())
    }
}

/// Computes each context once, then all continuations.
fn score_groups(
    groups: &[Group<'_>],
    by_document: &mut [Vec<(f64, bool)>],
    engine: &mut Engine,
    options: &CallOptions,
) -> Result<()> {
    // All but the last token of a context, which predicts the continuation.
    let shared: Vec<(SequenceId, &[u32])> = groups
        .iter()
        .filter(|group| group.is_shared())
        .map(|group| (engine.add_sequence(), &group.context[..group.context.len() - 1]))
        .collect();
    if !shared.is_empty() {
        engine.forward(&shared, options, Logits::None)?;
    }
    let mut shared = shared.into_iter().map(|(id, _)| id);
    let mut calls = Vec::new();
    for group in groups {
        let base = if group.is_shared() { shared.next() } else { None };
        let last = group.continuations.len() - 1;
        for (index, &(place, tokens)) in group.continuations.iter().enumerate() {
            let (sequence, context) = match base {
                Some(base) => {
                    let sequence = if index < last { engine.fork(base)? } else { base };
                    (sequence, &group.context[group.context.len() - 1..])
                }
                None => (engine.add_sequence(), group.context),
            };
            let ids = [context, &tokens[..tokens.len() - 1]].concat();
            calls.push((sequence, ids, tokens, place));
        }
    }
    let chunks: Vec<ScoredChunk<'_>> = calls
        .iter()
        .map(|(sequence, ids, targets, _)| ScoredChunk { sequence: *sequence, ids, targets })
        .collect();
    let scores = engine.score(&chunks, options)?;
    for ((sequence, .., [document, index]), scores) in calls.iter().zip(scores) {
        let log_likelihood = scores.iter().map(|score| score.log_likelihood).sum();
        let greedy = scores.iter().all(|score| score.greedy);
        by_document[*document][*index] = (log_likelihood, greedy);
        engine.remove_sequence(*sequence)?;
    }
    Ok(())
}

impl Group<'_> {
    fn size(&self, page_size: usize) -> Size {
        let lengths = self.continuations.iter().map(|(_, it)| self.context.len() + it.len() - 1);
        let sequences = lengths.map(|tokens| Size::of_sequence(tokens, page_size));
        sequences.fold(Size::default(), Size::and)
    }

    /// Whether the context is worth computing once.
    fn is_shared(&self) -> bool {
        self.continuations.len() > 1
    }
}
