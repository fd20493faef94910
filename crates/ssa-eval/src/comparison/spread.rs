//! A value over seeds.

use std::collections::BTreeMap;

use serde::Serialize;

/// A value over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation; `None` for a single seed.
    pub deviation: Option<f64>,
    /// The value of each seed.
    pub by_seed: BTreeMap<u64, f64>,
}

impl Spread {
    /// The spread of the values of seeds; `None` without values.
    pub fn of(by_seed: BTreeMap<u64, f64>) -> Option<Self> {
        if by_seed.is_empty() {
            return None;
        }
        let count = by_seed.len() as f64;
        let mean = by_seed.values().sum::<f64>() / count;
        let squares: f64 = by_seed.values().map(|value| (value - mean).powi(2)).sum();
        let deviation = (by_seed.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Some(Self { mean, deviation, by_seed })
    }

    /// Mean and deviation as text, which breaks before the sign at most.
    pub fn text(&self, decimals: usize) -> String {
        let mean = format!("{:.decimals$}", self.mean);
        match self.deviation {
            None => mean,
            Some(deviation) => format!("{mean} \u{b1}\u{a0}{deviation:.decimals$}"),
        }
    }
}
