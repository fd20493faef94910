//! Times prefill and decoding on the CPU, for a model with the sizes of SmolLM2-135M and random
//! `bf16` weights, and the products they are made of.
//!
//! ```text
//! cargo run --release -p ssa-infer --example decode_cpu [CONTEXT..]
//! ```
//!
//! Prints one JSON object per line; `cpu_ms` is the mean processor time of all threads, which other
//! programs on the machine change less than the time that passes. `benchmarks/peers/decode_cpu.py`
//! times transformers and llama.cpp on a model of the same sizes.

#![allow(clippy::print_stdout, reason = "a program that prints its results")]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::{Value, json};
use ssa_infer::{CallOptions, Engine, FillChange, InferenceModel, Logits, SequenceId};
use ssa_kernels::ops::linear::{LinearWeight, linear_fwd, linear_rows_fwd};
use ssa_kernels::{DType, Tensor};
use ssa_model::{AttentionMode, Model, ModelConfig};

/// Decoding steps that are timed at each context.
const STEPS: usize = 20;
/// Tokens of the prompt whose prefill is timed.
const PROMPT: usize = 2048;

fn main() -> Result<(), Box<dyn Error>> {
    let contexts =
        std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    let contexts = if contexts.is_empty() { vec![1024, 8192] } else { contexts };
    read();
    products()?;
    let longest = contexts.iter().copied().max().unwrap_or(0).max(PROMPT);
    let model = model(longest + STEPS)?;
    let options = model.config().attention_options(AttentionMode::Sparse);
    let page_size = options.selection.budget.block_size();
    let inference = InferenceModel::new(&model, options.method)?;
    println!("{}", json!({ "weight_bytes": inference.weight_bytes() }));
    let mut engine = Engine::new(inference, page_size, longest + STEPS)?;
    let sparse =
        CallOptions { fill_change: FillChange::Keep, ..CallOptions::new(&options, page_size)? };
    let full = CallOptions { mode: AttentionMode::Full, ..sparse };
    for options in [&full, &sparse] {
        prefill(&mut engine, options)?;
    }
    for context in contexts {
        let id = engine.add_sequence();
        let prompt: Vec<u32> = (0..context as u32).map(|token| token * 7919 % 49152).collect();
        engine.forward(&[(id, &prompt)], &sparse, Logits::None)?;
        for options in [&full, &sparse] {
            decode(&mut engine, id, context, options)?;
        }
        engine.remove_sequence(id)?;
    }
    Ok(())
}

/// How long calls took, in milliseconds.
struct Times {
    fastest: f64,
    median: f64,
    /// Mean processor time of a call, where the system tells it.
    cpu: Option<f64>,
}

fn time(calls: usize, mut call: impl FnMut()) -> Times {
    let before = cpu_ms();
    let mut times: Vec<f64> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let cpu = before.zip(cpu_ms()).map(|(before, after)| (after - before) / calls as f64);
    times.sort_by(f64::total_cmp);
    Times { fastest: times[0], median: times[calls / 2], cpu }
}

/// Processor time of this process on Linux, in milliseconds: ticks of 10 ms.
fn cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(10.0 * (ticks(11)? + ticks(12)?))
}

fn report(mut result: Value, times: &Times, (unit, work): (&str, f64)) {
    result["fastest_ms"] = json!(times.fastest);
    result["median_ms"] = json!(times.median);
    result["cpu_ms"] = json!(times.cpu);
    result[unit] = json!(work / times.fastest * 1e3);
    println!("{result}");
}

/// Reads memory and does nothing else.
fn read() {
    let data = vec![1_u64; 64 << 20];
    let times = time(7, || {
        let sums = data.par_chunks(1 << 16).map(|chunk| chunk.iter().fold(0, |sum, x| sum ^ x));
        black_box(sums.reduce(|| 0, |a, b| a ^ b));
    });
    report(json!({ "case": "read" }), &times, ("gb_per_s", size_of_val(&data[..]) as f64 * 1e-9));
}

/// One row times a large matrix, and many rows times matrices of the model.
fn products() -> Result<(), Box<dyn Error>> {
    let head = random([49_152, 576])?;
    for dtype in [DType::F32, DType::Bf16] {
        let weight = LinearWeight::new(&[&head], dtype)?;
        let x = random([1, 576])?;
        let times = time(15, || drop(black_box(linear_rows_fwd(&x, &weight))));
        let bytes = weight.bytes() as f64 * 1e-9;
        report(json!({ "case": "1 row", "dtype": dtype.to_string() }), &times, ("gb_per_s", bytes));
    }
    for [outputs, inputs] in [[3072, 576], [576, 1536]] {
        let (x, matrix) = (random([512, inputs])?, random([outputs, inputs])?);
        let gflop = (2 * 512 * outputs * inputs) as f64 * 1e-9;
        let name = format!("512 rows, {inputs} to {outputs}");
        let times = time(9, || drop(black_box(linear_fwd(&x, &matrix))));
        report(json!({ "case": name, "with": "gemm" }), &times, ("gflop_per_s", gflop));
        for dtype in [DType::F32, DType::Bf16] {
            let weight = LinearWeight::new(&[&matrix], dtype)?;
            let times = time(9, || drop(black_box(linear_rows_fwd(&x, &weight))));
            let result = json!({ "case": name, "with": dtype.to_string() });
            report(result, &times, ("gflop_per_s", gflop));
        }
    }
    Ok(())
}

fn prefill(engine: &mut Engine, options: &CallOptions) -> Result<(), Box<dyn Error>> {
    let prompt: Vec<u32> = (0..PROMPT as u32).collect();
    let mut failed = None;
    let times = time(2, || {
        let id = engine.add_sequence();
        let done = engine.forward(&[(id, &prompt)], options, Logits::Last);
        failed = done.and_then(|_| engine.remove_sequence(id)).err();
    });
    let case = json!({ "case": "prefill", "attention": options.mode.to_string() });
    report(case, &times, ("tokens_per_s", PROMPT as f64));
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn decode(
    engine: &mut Engine,
    id: SequenceId,
    context: usize,
    options: &CallOptions,
) -> Result<(), Box<dyn Error>> {
    let mut failed = None;
    let times = time(STEPS, || {
        failed = engine.forward(&[(id, &[17])], options, Logits::Last).err();
    });
    engine.truncate(id, context)?;
    report(
        json!({ "case": "decode", "context": context, "attention": options.mode.to_string() }),
        &times,
        ("tokens_per_s", 1.0),
    );
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// A model with the sizes of SmolLM2-135M and random weights that `bf16` holds.
fn model(positions: usize) -> Result<Model, Box<dyn Error>> {
    let json = json!({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        "max_position_embeddings": positions, "initializer_range": 0.04,
        "tie_word_embeddings": true, "hidden_act": "silu", "attention_bias": false,
    });
    let config = ModelConfig::from_json("sizes", json.as_object().ok_or("no object")?)?;
    let mut model = Model::init(config, 1)?;
    for (_, tensor) in model.parameters_mut().named_mut() {
        for value in tensor.as_mut_slice()? {
            *value = f32::from_bits(value.to_bits() & 0xffff_0000);
        }
    }
    Ok(model)
}

fn random<const R: usize>(shape: [usize; R]) -> Result<Tensor, Box<dyn Error>> {
    let len = shape.iter().product();
    Ok(Tensor::from_vec(ssa_testkit::Random::new(1).normal(len), shape)?)
}
