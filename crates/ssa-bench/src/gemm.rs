//! The matrix products of a training step.

use serde::Serialize;
use ssa_kernels::ops::linear::{linear_bwd_input, linear_bwd_weight, linear_fwd};
use ssa_kernels::{DType, KernelError, Tensor};
use ssa_model::ModelConfig;

use crate::inputs::Normal;
use crate::peaks::TERA;
use crate::{Meter, Result, Timing};

/// Rows of logits in memory at a time.
const HEAD_ROWS: usize = 4096;

/// One pass of one product.
#[derive(Clone, Debug, Serialize)]
pub struct GemmRow {
    /// The projections with this shape.
    pub product: &'static str,
    /// `forward`, `input gradient` or `weight gradient`.
    pub pass: &'static str,
    /// Number of tokens.
    pub rows: usize,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
    /// The timing.
    #[serde(flatten)]
    pub timing: Timing,
    /// The rate.
    pub tflops: f64,
}

struct Product {
    name: &'static str,
    rows: usize,
    inputs: usize,
    outputs: usize,
}

/// The products of a step of `rows` tokens; the head gets at most 4096 at a time.
fn products(config: &ModelConfig, rows: usize) -> [Product; 6] {
    let (hidden, feed_forward) = (config.hidden_size, config.intermediate_size);
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let product = |name, inputs, outputs| Product { name, rows, inputs, outputs };
    let head = product("head", hidden, config.vocab_size);
    [
        product("q", hidden, queries),
        product("k, v", hidden, keys),
        product("o", queries, hidden),
        product("gate, up", hidden, feed_forward),
        product("down", feed_forward, hidden),
        Product { rows: rows.min(HEAD_ROWS), ..head },
    ]
}

/// Bytes of CPU memory for the largest product, with inputs, output and gradients.
pub fn gemm_bytes(config: &ModelConfig, rows: usize) -> usize {
    let elements = |product: &Product| {
        let Product { rows, inputs, outputs, .. } = product;
        rows * (inputs + outputs) + inputs * outputs
    };
    // Two sets of inputs and results, and the gradients.
    products(config, rows).iter().map(elements).max().unwrap_or(0) * 6 * size_of::<f32>()
}

/// Measures the products of a model's step of `rows` tokens, forward and both gradients, as in
/// training: gradients are written to fresh buffers.
///
/// # Errors
/// If the device fails or is out of memory.
pub fn gemm(
    meter: &Meter,
    config: &ModelConfig,
    rows: usize,
    observe: &mut dyn FnMut(&GemmRow),
) -> Result<Vec<GemmRow>> {
    let mut random = Normal::new();
    let mut results = Vec::new();
    for product in products(config, rows) {
        for row in measure(meter, &product, &mut random)? {
            observe(&row);
            results.push(row);
        }
    }
    Ok(results)
}

fn measure(
    meter: &Meter,
    product: &Product,
    random: &mut Normal,
) -> Result<[GemmRow; 3], KernelError> {
    let &Product { name, rows, inputs, outputs } = product;
    let device = meter.device();
    let elements = rows * inputs + inputs * outputs + rows * outputs;
    let sets = meter.sets(elements * device.dtype().size());
    let mut tensor = |shape: &[usize]| random.tensor(device, shape);
    let operands: Vec<[Tensor; 3]> = (0..sets)
        .map(|_| {
            Ok([
                tensor(&[1, rows, inputs])?,
                tensor(&[outputs, inputs])?,
                tensor(&[1, rows, outputs])?,
            ])
        })
        .collect::<Result<_, KernelError>>()?;
    let forward = meter.measure(sets, |set| {
        let [x, weight, _] = &operands[set];
        linear_fwd(x, weight).map(drop)
    })?;
    let input_gradient = meter.measure(sets, |set| {
        let [x, weight, dout] = &operands[set];
        linear_bwd_input(dout, weight, &mut Tensor::zeros_like(x)?)
    })?;
    let weight_gradient = meter.measure(sets, |set| {
        let [x, weight, dout] = &operands[set];
        linear_bwd_weight(dout, x, &mut Tensor::zeros_on(device, DType::F32, weight.shape())?)
    })?;
    let flops = 2.0 * rows as f64 * inputs as f64 * outputs as f64;
    let row = |pass, timing: Timing| {
        let tflops = timing.per_second(flops) / TERA;
        GemmRow { product: name, pass, rows, inputs, outputs, timing, tflops }
    };
    Ok([
        row("forward", forward),
        row("input gradient", input_gradient),
        row("weight gradient", weight_gradient),
    ])
}
