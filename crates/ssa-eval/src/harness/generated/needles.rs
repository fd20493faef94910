//! A needle in a haystack: the value of a key, in a text about other things.
//!
//! # Differences from RULER
//! The queried needle is at a given depth, others at random ones. A text begins at a random
//! sentence, not at its beginning, and its sentences are found by punctuation. Words come from
//! shorter lists. Candidates for scores by likelihood are not part of RULER.

use serde::Deserialize;
use ssa_text::Json;

use super::draws::{Draws, Kind};
use super::haystack::Haystack;
use super::passage::{Passage, at_depth, inserted};
use super::{Sample, text, texts};

/// More needles than any published task has.
pub(super) const MOST_KEYS: usize = 1000;
/// The most candidates for scores by likelihood.
const CANDIDATES: usize = 10;

/// What is around the needles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Around {
    /// The user's text; without one, noise.
    #[default]
    Text,
    /// More needles.
    Needles,
}

/// `kind: needles`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Needles {
    #[serde(default)]
    haystack: Around,
    /// Needles in a text. One is queried.
    #[serde(default = "one")]
    pub(super) keys: usize,
    #[serde(default = "words")]
    key_type: Kind,
    #[serde(default = "numbers")]
    value_type: Kind,
}

fn one() -> usize {
    1
}

fn words() -> Kind {
    Kind::Words
}

fn numbers() -> Kind {
    Kind::Numbers
}

pub(super) struct NeedleSample<'a> {
    settings: Needles,
    /// The queried key first.
    keys: Vec<String>,
    values: Vec<String>,
    /// Depths of the needles that are not queried, in percent.
    depths: Vec<usize>,
    passage: Passage<'a>,
    /// More needles, drawn as they are needed.
    more: Vec<String>,
    more_values: Vec<String>,
    more_draws: Draws,
    /// Values that are nowhere in the context.
    absent: Vec<String>,
    /// Decides the place of the right candidate.
    place: usize,
}

impl Needles {
    pub(super) fn reads_text(&self) -> bool {
        self.haystack == Around::Text
    }

    pub(super) fn sample<'a>(
        &self,
        seed: u64,
        sample: usize,
        haystack: Option<&'a Haystack>,
    ) -> NeedleSample<'a> {
        let mut draws = Draws::new("needles", seed, sample);
        let [mut keys, mut values] = [Vec::new(), Vec::new()];
        for _ in 0..self.keys {
            keys.push(draws.other(self.key_type, &keys));
            values.push(draws.other(self.value_type, &values));
        }
        let mut absent = Vec::new();
        for _ in 1..CANDIDATES {
            let known = [values.as_slice(), &absent].concat();
            absent.push(draws.other(self.value_type, &known));
        }
        NeedleSample {
            settings: self.clone(),
            depths: (1..self.keys).map(|_| draws.below(101)).collect(),
            place: draws.below(usize::from(u16::MAX)),
            passage: Passage::new(haystack, &mut draws),
            more: Vec::new(),
            more_values: Vec::new(),
            more_draws: Draws::new("more needles", seed, sample),
            keys,
            values,
            absent,
        }
    }
}

impl NeedleSample<'_> {
    fn needle(&self, key: &str, value: &str) -> String {
        let kind = self.settings.value_type.plural();
        format!("One of the special magic {kind} for {key} is: {value}.")
    }

    /// Draws needles until there are so many.
    fn draw_more(&mut self, count: usize) {
        while self.more.len() < count {
            let key = self.more_draws.other(self.settings.key_type, &self.keys);
            let value = self.more_draws.other(self.settings.value_type, &self.values);
            self.more.push(self.needle(&key, &value));
            self.more_values.push(value);
        }
    }

    /// The values to choose from: those of other needles, or without any such values that are not
    /// in the context. The right one is at a random place.
    fn choices(&self, units: usize) -> (Vec<String>, usize) {
        let others = match self.settings.haystack {
            Around::Needles if units > 0 => &self.more_values[..units],
            _ if self.values.len() > 1 => &self.values[1..],
            _ => self.absent.as_slice(),
        };
        let mut choices: Vec<String> = Vec::new();
        for value in others {
            if choices.len() + 1 < CANDIDATES && !choices.contains(value) {
                choices.push(value.clone());
            }
        }
        let place = self.place % (choices.len() + 1);
        choices.insert(place, self.values[0].clone());
        (choices, place)
    }
}

impl Sample for NeedleSample<'_> {
    fn fields(&mut self, units: usize, depth: usize) -> Vec<(&'static str, Json)> {
        let from_needles = self.settings.haystack == Around::Needles;
        if from_needles {
            self.draw_more(units);
        }
        let sentences: Vec<&str> = match from_needles {
            true => self.more[..units].iter().map(String::as_str).collect(),
            false => self.passage.sentences(units),
        };
        let separator = if from_needles { "\n" } else { self.passage.separator() };
        let needles: Vec<String> = self
            .keys
            .iter()
            .zip(&self.values)
            .map(|(key, value)| self.needle(key, value))
            .collect();
        let depths = std::iter::once(depth).chain(self.depths.iter().copied());
        let places = depths.map(|depth| at_depth(sentences.len(), depth));
        let others = places.zip(needles.iter().map(String::as_str)).collect();
        let (choices, label) = self.choices(units);
        let plural = self.settings.value_type.plural();
        vec![
            ("context", text(inserted(&sentences, others, separator))),
            ("query", text(self.keys[0].as_str())),
            ("value_type", text(&plural[..plural.len() - 1])),
            ("answers", texts(&self.values[..1])),
            ("choices", texts(&choices)),
            ("label", Json::Int(label as i128)),
        ]
    }
}
