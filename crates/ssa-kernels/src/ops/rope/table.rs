//! Rotation angles: frequencies, their scaling for long contexts, and the table of cosines and
//! sines.

use std::f64::consts::TAU;
use std::sync::Arc;

use super::Yarn;
use crate::cuda::{Buffer, Gpu};
use crate::device_cache::DeviceCache;
use crate::tensor::addressable_len;
use crate::{KernelError, Result};

/// The change of the frequencies for contexts longer than those of pretraining.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// No change.
    None,
    /// The `linear` type of Hugging Face configurations: every frequency is divided by `factor`.
    Linear {
        /// Divisor of all frequencies.
        factor: f64,
    },
    /// The `llama3` type of Hugging Face configurations. With `L =
    /// original_max_position_embeddings`, a frequency with a wavelength below `L /
    /// high_freq_factor` stays, one with a wavelength above `L / low_freq_factor` is divided by
    /// `factor`, and between the two it is interpolated linearly in `L / wavelength`.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Turns within `L` below which a frequency counts as low.
        low_freq_factor: f64,
        /// Turns within `L` above which a frequency counts as high.
        high_freq_factor: f64,
        /// Context length `L` of pretraining.
        original_max_position_embeddings: usize,
    },
    /// The `yarn` type of Hugging Face configurations.
    Yarn(Yarn),
}

impl RopeScaling {
    /// The factor of cosines and sines.
    pub fn attention_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor,
            Self::None | Self::Linear { .. } | Self::Llama3 { .. } => 1.0,
        }
    }

    /// The angle per position of each of the `head_dim / 2` pairs: `theta^(-2i / head_dim)`,
    /// scaled.
    pub fn inverse_frequencies(
        &self,
        head_dim: usize,
        theta: f64,
    ) -> impl ExactSizeIterator<Item = f64> + Clone + '_ {
        (0..head_dim / 2).map(move |pair| {
            let frequency = theta.powf(-2.0 * pair as f64 / head_dim as f64);
            match self {
                Self::Yarn(yarn) => yarn.scale(frequency, pair, head_dim, theta),
                _ => self.scale(frequency),
            }
        })
    }

    /// Scales a frequency by a rule that does not depend on the pair.
    fn scale(&self, frequency: f64) -> f64 {
        match *self {
            Self::None | Self::Yarn(_) => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let turns = original_max_position_embeddings as f64 * frequency / TAU;
                // 0 at and below the low border, 1 at and above the high one.
                let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor))
                    .clamp(0.0, 1.0);
                (1.0 - keep) * frequency / factor + keep * frequency
            }
        }
    }

    fn check(&self, op: &'static str, theta: f64) -> Result<()> {
        match *self {
            Self::None => Ok(()),
            Self::Linear { factor } => check_above(op, "factor", factor, 0.0),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                check_above(op, "factor", factor, 0.0)?;
                check_above(op, "low_freq_factor", low_freq_factor, 0.0)?;
                check_above(op, "high_freq_factor", high_freq_factor, low_freq_factor)?;
                let length = original_max_position_embeddings as f64;
                check_above(op, "original_max_position_embeddings", length, 0.0)
            }
            Self::Yarn(ref yarn) => {
                check_above(op, "factor", yarn.factor, 0.0)?;
                check_above(op, "attention_factor", yarn.attention_factor, 0.0)?;
                check_above(op, "beta_slow", yarn.beta_slow, 0.0)?;
                check_above(op, "beta_fast", yarn.beta_fast, yarn.beta_slow)?;
                let length = yarn.original_max_position_embeddings as f64;
                check_above(op, "original_max_position_embeddings", length, 0.0)?;
                check_above(op, "theta", theta, 1.0)
            }
        }
    }
}

/// Cosines and sines of every angle up to a length, shared by all layers and heads.
#[derive(Clone, Debug)]
pub struct RopeTable {
    head_dim: usize,
    positions: usize,
    /// `[positions, head_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    copies: Arc<DeviceCache<f32>>,
}

impl RopeTable {
    /// The table of positions `0..positions`, computed in `f64` and stored in `f32`.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if `head_dim` is zero or odd, if the table would take more than
    /// `isize::MAX` bytes, if `theta` or a number of `scaling` is not positive and finite, if
    /// `high_freq_factor` is not above `low_freq_factor` or `beta_fast` not above `beta_slow`, or
    /// if `theta` is not above 1 with [`Yarn`].
    pub fn new(
        head_dim: usize,
        theta: f64,
        scaling: &RopeScaling,
        positions: usize,
    ) -> Result<Self> {
        const OP: &str = "RopeTable::new";
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(KernelError::value(OP, "head_dim", "even and at least 2", head_dim));
        }
        check_above(OP, "theta", theta, 0.0)?;
        scaling.check(OP, theta)?;
        if addressable_len(size_of::<f32>(), &[positions, head_dim]).is_none() {
            let expected = format!("a table of heads of {head_dim} elements that memory can hold");
            return Err(KernelError::value(OP, "positions", expected, positions));
        }
        let frequencies: Vec<f64> = scaling.inverse_frequencies(head_dim, theta).collect();
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let factor = scaling.attention_factor();
        let (cos, sin) = angles
            .map(|angle| ((factor * angle.cos()) as f32, (factor * angle.sin()) as f32))
            .unzip();
        Ok(Self { head_dim, positions, cos, sin, copies: Arc::default() })
    }

    /// The number of positions: no document may be longer.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The head dimension the table was made for.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Cosines and sines of one position.
    pub(super) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.head_dim / 2;
        let row = position * half..(position + 1) * half;
        (&self.cos[row.clone()], &self.sin[row])
    }

    /// All cosines, then all sines, on a GPU; copied the first time.
    pub(crate) fn device(&self, gpu: &Gpu) -> Result<Arc<Buffer<f32>>> {
        self.copies.get(gpu, (), || [&self.cos[..], &self.sin].concat())
    }
}

fn check_above(op: &'static str, argument: &'static str, value: f64, bound: f64) -> Result<()> {
    if value > bound && value.is_finite() {
        Ok(())
    } else {
        Err(KernelError::value(op, argument, format!("finite and above {bound}"), value))
    }
}
