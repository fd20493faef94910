//! Random keys and values.

use serde::Deserialize;
use ssa_files::Sha256;

use super::super::python_random::PythonRandom;

/// The draws of a sample.
#[derive(Debug)]
pub(super) struct Draws {
    random: PythonRandom,
}

/// What a key or a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Seven digits, the first not 0.
    Numbers,
    /// An adjective and a noun.
    Words,
    /// Version 4, 36 characters.
    Uuids,
}

impl Kind {
    /// As prompts write it: `numbers`.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Words => "words",
            Self::Uuids => "uuids",
        }
    }
}

impl Draws {
    /// The draws for one purpose of a sample.
    pub(super) fn new(purpose: &str, seed: u64, sample: usize) -> Self {
        let sum = Sha256::of(format!("{purpose} {seed} {sample}"));
        let bytes = sum.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { random: PythonRandom::new(u64::from_le_bytes(bytes)) }
    }

    /// An integer below `limit`, which is at least 1.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    /// A number from 0 to 1, without 1.
    pub(super) fn fraction(&mut self) -> f64 {
        self.random.float()
    }

    /// A key or value.
    pub(super) fn value(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Numbers => (1_000_000 + self.below(9_000_000)).to_string(),
            Kind::Words => {
                let adjective = ADJECTIVES[self.below(ADJECTIVES.len())];
                format!("{adjective}-{}", NOUNS[self.below(NOUNS.len())])
            }
            Kind::Uuids => self.uuid(),
        }
    }

    /// A key or value that is not among `known`.
    pub(super) fn other(&mut self, kind: Kind, known: &[String]) -> String {
        loop {
            let value = self.value(kind);
            if !known.contains(&value) {
                return value;
            }
        }
    }

    /// So many uppercase letters.
    pub(super) fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'A' + self.below(26) as u8)).collect()
    }

    /// A number of five digits, the first not 0.
    pub(super) fn five_digits(&mut self) -> String {
        (10_000 + self.below(90_000)).to_string()
    }

    fn uuid(&mut self) -> String {
        let digits: String = (0..32)
            .map(|place| {
                let digit = match place {
                    12 => 4,
                    16 => 8 + self.below(4),
                    _ => self.below(16),
                };
                char::from(b"0123456789abcdef"[digit])
            })
            .collect();
        let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
        format!("{a}-{b}-{c}-{d}-{e}")
    }
}

/// RULER draws from the lists of the package wonderwords; these are our own.
const ADJECTIVES: [&str; 48] = [
    "able", "amber", "ancient", "bitter", "blue", "brave", "bright", "broad", "calm", "clever",
    "cold", "cosmic", "curious", "deep", "distant", "dusty", "eager", "early", "faint", "fierce",
    "frozen", "gentle", "golden", "hollow", "humble", "idle", "jolly", "keen", "late", "loud",
    "lucky", "mellow", "narrow", "odd", "pale", "polite", "quick", "rapid", "rusty", "silent",
    "silver", "solid", "steep", "tidy", "vivid", "warm", "wild", "young",
];
const NOUNS: [&str; 48] = [
    "anchor", "apple", "arrow", "basket", "beacon", "bridge", "button", "canyon", "castle",
    "cloud", "compass", "copper", "desert", "engine", "falcon", "feather", "forest", "garden",
    "glacier", "hammer", "harbor", "island", "jacket", "kettle", "ladder", "lantern", "marble",
    "meadow", "mirror", "needle", "ocean", "orchard", "paper", "pebble", "pillow", "planet",
    "quarry", "ribbon", "river", "saddle", "shadow", "spiral", "temple", "thunder", "tunnel",
    "valley", "window", "winter",
];
