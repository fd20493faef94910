//! The parts of attention.

mod parts;

use serde::Serialize;
use ssa_kernels::ops::attention::AttentionCall;
use ssa_kernels::{Documents, KernelError, Tensor};
use ssa_model::SparseBudget;

use crate::inputs::Normal;
use crate::peaks::{GIGA, TERA};
use crate::{Meter, Result, Timing};

/// Settings of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct AttentionSettings {
    /// Row lengths.
    pub tokens: Vec<usize>,
    /// Sparse attention budgets.
    pub budgets: Vec<SparseBudget>,
    /// HQ, query heads.
    pub q_heads: usize,
    /// H, key/value heads; a divisor of HQ.
    pub kv_heads: usize,
    /// D, head dimension.
    pub head_dim: usize,
}

/// The result of one part at one length.
#[derive(Clone, Debug, Serialize)]
pub struct AttentionRow {
    /// Length of the row.
    pub tokens: usize,
    /// The name of the part, such as `full forward`.
    pub part: &'static str,
    /// The budget, if the part has one.
    pub budget: Option<SparseBudget>,
    /// The kind of selected blocks, if it matters: `random` inputs have no locality, `local` ones
    /// have that of trained models.
    pub selection: Option<&'static str>,
    /// The timing; `None` if the part failed.
    #[serde(flatten)]
    pub timing: Option<Timing>,
    /// Operations (by formula) over the time, for compute-bound parts.
    pub tflops: Option<f64>,
    /// Minimum bytes read and written over the time, for memory-bound parts.
    pub gb_per_s: Option<f64>,
    /// Why it did not run.
    pub error: Option<String>,
}

/// Bytes of CPU memory for the longest row.
pub fn attention_bytes(settings: &AttentionSettings) -> usize {
    let heads = settings.q_heads + settings.kv_heads;
    let tokens = settings.tokens.iter().copied().max().unwrap_or(0);
    // Two sets of q, k, v and the gradient of the output; outputs, and gradients of all.
    tokens.saturating_mul(heads * settings.head_dim).saturating_mul(8 * size_of::<f32>())
}

/// Measures the parts of attention separately, and selection with sparse attention as a whole.
///
/// A part without a kernel or enough memory on the device becomes a row with the reason; the others
/// are still measured.
///
/// # Errors
/// If the device fails.
pub fn attention(
    meter: &Meter,
    settings: &AttentionSettings,
    observe: &mut dyn FnMut(&AttentionRow),
) -> Result<Vec<AttentionRow>> {
    let mut random = Normal::new();
    let mut rows = Vec::new();
    for &tokens in &settings.tokens {
        let mut bench = Bench { meter, tokens, rows: &mut rows, observe };
        let inputs = match Inputs::new(meter, settings, tokens, &mut random) {
            Ok(inputs) => inputs,
            Err(error) => {
                bench.failed(Part::new("inputs"), error)?;
                continue;
            }
        };
        parts::full(&mut bench, &inputs)?;
        for &budget in &settings.budgets {
            parts::sparse(&mut bench, &inputs, budget)?;
        }
        parts::gate_and_alignment(&mut bench, &inputs)?;
    }
    Ok(rows)
}

/// Sets of inputs to rotate through.
struct Inputs {
    /// q, k, v and the gradient of the output.
    sets: Vec<[Tensor; 4]>,
    documents: Documents,
    softmax_scale: f32,
    /// HQ * D and H * D.
    q_width: usize,
    kv_width: usize,
    kv_heads: usize,
}

impl Inputs {
    fn new(
        meter: &Meter,
        settings: &AttentionSettings,
        tokens: usize,
        random: &mut Normal,
    ) -> Result<Self, KernelError> {
        let &AttentionSettings { q_heads, kv_heads, head_dim, .. } = settings;
        let (q_width, kv_width) = (q_heads * head_dim, kv_heads * head_dim);
        let device = meter.device();
        let count = meter.sets(2 * tokens * (q_width + kv_width) * device.dtype().size());
        let mut tensor = |heads| random.tensor(device, &[1, tokens, heads, head_dim]);
        let sets = (0..count)
            .map(|_| Ok([tensor(q_heads)?, tensor(kv_heads)?, tensor(kv_heads)?, tensor(q_heads)?]))
            .collect::<Result<_, KernelError>>()?;
        let (documents, softmax_scale) =
            (Documents::rows(1, tokens)?, (head_dim as f32).powf(-0.5));
        Ok(Self { sets, documents, softmax_scale, q_width, kv_width, kv_heads })
    }

    /// The attention call of a set.
    fn call<'a>(&'a self, [q, k, v, _]: &'a [Tensor; 4]) -> AttentionCall<'a> {
        AttentionCall { q, k, v, documents: &self.documents, softmax_scale: self.softmax_scale }
    }

    /// Applies `make` to every set.
    fn each<T>(
        &self,
        make: impl FnMut(&[Tensor; 4]) -> Result<T, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        self.sets.iter().map(make).collect()
    }
}

/// A part and its work, for the rate.
#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    budget: Option<SparseBudget>,
    selection: Option<&'static str>,
    flops: Option<f64>,
    bytes: Option<f64>,
}

impl Part {
    fn new(name: &'static str) -> Self {
        Self { name, budget: None, selection: None, flops: None, bytes: None }
    }

    fn flops(self, flops: f64) -> Self {
        Self { flops: Some(flops), ..self }
    }

    fn bytes(self, bytes: usize) -> Self {
        Self { bytes: Some(bytes as f64), ..self }
    }
}

/// The measurements at one length.
struct Bench<'a> {
    meter: &'a Meter,
    tokens: usize,
    rows: &'a mut Vec<AttentionRow>,
    observe: &'a mut dyn FnMut(&AttentionRow),
}

impl Bench<'_> {
    fn measure(
        &mut self,
        part: Part,
        inputs: &Inputs,
        mut call: impl FnMut(usize, &[Tensor; 4]) -> Result<(), KernelError>,
    ) -> Result<()> {
        match self.meter.measure(inputs.sets.len(), |set| call(set, &inputs.sets[set])) {
            Ok(timing) => {
                let tflops = part.flops.map(|flops| timing.per_second(flops) / TERA);
                let gb_per_s = part.bytes.map(|bytes| timing.per_second(bytes) / GIGA);
                self.push(AttentionRow {
                    timing: Some(timing),
                    tflops,
                    gb_per_s,
                    ..self.row(part)
                });
                Ok(())
            }
            Err(error) => self.failed(part, error),
        }
    }

    /// Unwraps an input of a part; if it failed, adds a row with the reason and returns `None`.
    fn need<T>(&mut self, part: Part, made: Result<T, KernelError>) -> Result<Option<T>> {
        made.map_or_else(|error| self.failed(part, error).map(|()| None), |made| Ok(Some(made)))
    }

    /// Adds a row for a failed part. A failed device is an error.
    fn failed(&mut self, part: Part, error: KernelError) -> Result<()> {
        if let KernelError::Cuda { .. } = error {
            return Err(error.into());
        }
        // A table cell has room for the message but not for its hint.
        let message = error.to_string().lines().next().map(str::to_owned);
        self.push(AttentionRow { error: message, ..self.row(part) });
        Ok(())
    }

    fn row(&self, part: Part) -> AttentionRow {
        AttentionRow {
            tokens: self.tokens,
            part: part.name,
            budget: part.budget,
            selection: part.selection,
            timing: None,
            tflops: None,
            gb_per_s: None,
            error: None,
        }
    }

    fn push(&mut self, row: AttentionRow) {
        (self.observe)(&row);
        self.rows.push(row);
    }
}
