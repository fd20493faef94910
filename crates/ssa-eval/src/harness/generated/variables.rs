//! Variable tracking: all variables that have a value through a chain of assignments.
//!
//! # Differences from RULER
//! The text may be the user's. Statements of a chain can be next to each other. There is no example
//! before the question. Candidates for scores by likelihood, the variables of each chain, are not
//! part of RULER.

use serde::Deserialize;
use ssa_text::Json;

use super::draws::Draws;
use super::haystack::Haystack;
use super::passage::{Passage, inserted};
use super::{Sample, text, texts};

/// More chains than any published task has.
pub(super) const MOST_CHAINS: usize = 100;
/// Letters of a variable.
const LETTERS: usize = 5;

/// `kind: variables`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Variables {
    /// Chains of assignments; the first is queried.
    #[serde(default = "one")]
    pub(super) chains: usize,
    /// Assignments of a variable to the next.
    #[serde(default = "four")]
    hops: u8,
}

fn one() -> usize {
    1
}

fn four() -> u8 {
    4
}

pub(super) struct VariableSample<'a> {
    chains: Vec<Chain>,
    passage: Passage<'a>,
    /// The place of the queried chain among the candidates.
    place: usize,
}

struct Chain {
    variables: Vec<String>,
    value: String,
    /// The statements in order, each with its place in the context from 0 to 1.
    statements: Vec<(f64, String)>,
}

impl Variables {
    pub(super) fn sample<'a>(
        &self,
        seed: u64,
        sample: usize,
        haystack: Option<&'a Haystack>,
    ) -> VariableSample<'a> {
        let mut draws = Draws::new("variables", seed, sample);
        let mut known: Vec<String> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        let mut chains = Vec::new();
        for _ in 0..self.chains {
            let variables: Vec<String> =
                (0..=self.hops).map(|_| new(&mut known, || draws.letters(LETTERS))).collect();
            let value = new(&mut values, || draws.five_digits());
            let mut places: Vec<f64> = variables.iter().map(|_| draws.fraction()).collect();
            places.sort_by(f64::total_cmp);
            let first = format!("VAR {} = {value}", variables[0]);
            let hops =
                variables.windows(2).map(|pair| format!("VAR {} = VAR {}", pair[1], pair[0]));
            let statements = places.into_iter().zip(std::iter::once(first).chain(hops)).collect();
            chains.push(Chain { variables, value, statements });
        }
        let place = draws.below(self.chains);
        VariableSample { chains, passage: Passage::new(haystack, &mut draws), place }
    }
}

/// A text that is not known yet, and is from now on.
fn new(known: &mut Vec<String>, mut draw: impl FnMut() -> String) -> String {
    loop {
        let text = draw();
        if !known.contains(&text) {
            known.push(text.clone());
            return text;
        }
    }
}

impl Sample for VariableSample<'_> {
    fn fields(&mut self, units: usize, _depth: usize) -> Vec<(&'static str, Json)> {
        let sentences = self.passage.sentences(units);
        let place = |share: f64| (share * (sentences.len() + 1) as f64) as usize;
        let statements = self.chains.iter().flat_map(|chain| &chain.statements);
        let others = statements.map(|(share, it)| (place(*share), it.as_str())).collect();
        let queried = &self.chains[0];
        let mut choices: Vec<String> =
            self.chains[1..].iter().map(|chain| chain.variables.join(" ")).collect();
        choices.insert(self.place, queried.variables.join(" "));
        vec![
            ("context", text(inserted(&sentences, others, self.passage.separator()))),
            ("query", text(queried.value.as_str())),
            ("count", Json::Int(queried.variables.len() as i128)),
            ("answers", texts(&queried.variables)),
            ("choices", texts(&choices)),
            ("label", Json::Int(self.place as i128)),
        ]
    }
}
