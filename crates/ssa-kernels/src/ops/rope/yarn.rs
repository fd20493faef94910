//! YaRN, the scaling of <https://arxiv.org/abs/2309.00071>.

use std::f64::consts::TAU;

/// The `yarn` type of Hugging Face configurations.
///
/// With `L = original_max_position_embeddings`, the pair of a head that turns n times within L has
/// the real index `d(n) = head_dim ln(L / (2 pi n)) / (2 ln theta)`. Frequencies of pairs up to
/// `d(beta_fast)` stay, those from `d(beta_slow)` on are divided by `factor`, and between the two
/// they are interpolated linearly in the index. Cosines and sines are multiplied by
/// `attention_factor`.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// Divisor of low frequencies.
    pub factor: f64,
    /// Factor of queries and keys.
    pub attention_factor: f64,
    /// Turns within `L` above which a frequency counts as high.
    pub beta_fast: f64,
    /// Turns within `L` below which a frequency counts as low.
    pub beta_slow: f64,
    /// Context length `L` of pretraining.
    pub original_max_position_embeddings: usize,
    /// Whether the borders are rounded outward to whole indices.
    pub truncate: bool,
}

impl Yarn {
    /// The attention factor of configurations that name none.
    pub fn default_attention_factor(factor: f64) -> f64 {
        Self::mscale(factor, 1.0)
    }

    /// `0.1 weight ln(factor) + 1`: what `mscale` and `mscale_all_dim` weigh.
    pub fn mscale(factor: f64, weight: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
    }

    /// Scales the frequency of a pair.
    pub(super) fn scale(&self, frequency: f64, pair: usize, head_dim: usize, theta: f64) -> f64 {
        let index = |turns: f64| {
            let length = self.original_max_position_embeddings as f64;
            head_dim as f64 * (length / (turns * TAU)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (index(self.beta_fast), index(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        frequency * (1.0 - divided) + frequency / self.factor * divided
    }
}
