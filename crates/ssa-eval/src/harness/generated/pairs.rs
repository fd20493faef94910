//! Key-value retrieval: the value of a key of a JSON object of random UUIDs.
//!
//! # Differences from Liu et al.
//! The number of pairs follows from the length. Candidates for scores by likelihood are not part of
//! theirs.

use serde::Deserialize;
use ssa_text::Json;

use super::draws::{Draws, Kind};
use super::passage::at_depth;
use super::{Sample, text, texts};

/// The most candidates for scores by likelihood.
const CANDIDATES: usize = 10;

/// `kind: pairs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Pairs {
    #[serde(default = "uuids")]
    key_type: Kind,
    #[serde(default = "uuids")]
    value_type: Kind,
}

fn uuids() -> Kind {
    Kind::Uuids
}

pub(super) struct PairSample {
    settings: Pairs,
    queried: [String; 2],
    /// Pairs around it, drawn as they are needed.
    others: Vec<[String; 2]>,
    draws: Draws,
    /// Decides the place of the right candidate.
    place: usize,
}

impl Pairs {
    pub(super) fn sample(&self, seed: u64, sample: usize) -> PairSample {
        let mut draws = Draws::new("pairs", seed, sample);
        let queried = [draws.value(self.key_type), draws.value(self.value_type)];
        let place = draws.below(usize::from(u16::MAX));
        PairSample { settings: self.clone(), queried, others: Vec::new(), draws, place }
    }
}

impl Sample for PairSample {
    fn fields(&mut self, units: usize, depth: usize) -> Vec<(&'static str, Json)> {
        let known = [&self.queried[..1], &self.queried[1..]];
        while self.others.len() < units {
            let key = self.draws.other(self.settings.key_type, known[0]);
            let value = self.draws.other(self.settings.value_type, known[1]);
            self.others.push([key, value]);
        }
        let others = &self.others[..units];
        let (before, after) = others.split_at(at_depth(units, depth));
        let pairs = before.iter().chain([&self.queried]).chain(after);
        let pairs: Vec<String> =
            pairs.map(|[key, value]| format!("\"{key}\": \"{value}\"")).collect();
        let mut choices: Vec<String> =
            others.iter().take(CANDIDATES - 1).map(|[_, value]| value.clone()).collect();
        let label = self.place % (choices.len() + 1);
        choices.insert(label, self.queried[1].clone());
        vec![
            ("context", text(format!("{{{}}}", pairs.join(",\n ")))),
            ("query", text(self.queried[0].as_str())),
            ("answers", texts(&self.queried[1..])),
            ("choices", texts(&choices)),
            ("label", Json::Int(label as i128)),
        ]
    }
}
