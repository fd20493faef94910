//! Decoding with a cache: logits of steps and chunks against those of the model over the whole
//! text, and steps of different batches against each other.

use ssa_infer::{
    CallOptions, Draw, DrawRequest, Engine, FillChange, InferError, InferenceModel, Logits,
    NoiseKey, Sampler, SamplingOptions, SequenceId,
};
use ssa_kernels::{Device, KernelError};
use ssa_model::{AttentionMode, Input, Method, Model, ModelConfig, ModelSettings, SparseBudget};

use crate::architecture::{Architecture, vary_constants};
use crate::context::{largest, worst};
use crate::{Context, Result};

/// Heads and key/value heads, head size, block size and number of blocks.
const SHAPES: [[usize; 5]; 3] = [[16, 1, 64, 16, 4], [6, 2, 32, 8, 3], [4, 4, 16, 5, 2]];
/// Tokens of a text, of which the first are a prompt.
const TOKENS: usize = 150;
const PROMPT: usize = 131;
const VOCABULARY: usize = 257;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    let gated = Architecture::GATED;
    for method in Method::ALL {
        for shape in SHAPES {
            check_modes(context, *method, shape, gated)?;
        }
    }
    // Llama with the groups of SmolLM2, Qwen2, and SSA models made of Qwen3.
    let plain = Architecture::PLAIN;
    let qkv_bias = Architecture { qkv_bias: true, ..plain };
    let qk_norm = Architecture { qk_norm: true, ..gated };
    check_modes(context, Method::FULL, [9, 3, 64, 16, 4], plain)?;
    check_modes(context, Method::FULL, [6, 2, 32, 8, 3], qkv_bias)?;
    check_modes(context, Method::SSA, [4, 2, 64, 16, 4], qk_norm)
}

fn check_modes(
    context: &mut Context<'_>,
    method: Method,
    shape: [usize; 5],
    architecture: Architecture,
) -> Result<()> {
    let [heads, kv_heads, head_dim, block_size, _] = shape;
    let all = [heads, kv_heads, head_dim, block_size, TOKENS.div_ceil(block_size)];
    for mode in method.modes() {
        let mut check = |shape, positions| {
            check(context, (method, mode), shape, architecture, positions).map_err(kernel_error)
        };
        check(all, Positions::All)?;
        if mode == AttentionMode::Sparse {
            check(shape, Positions::Half)?;
        }
    }
    Ok(())
}

/// The engine's own checks pass here, so what is left are failures of the device.
fn kernel_error(error: InferError) -> KernelError {
    match error {
        InferError::Kernel(error) => error,
        InferError::Model(error) => crate::model::kernel_error(error),
        other => KernelError::Cuda { call: "an engine", message: other.to_string() },
    }
}

/// The positions whose logits must be right.
#[derive(Clone, Copy)]
enum Positions {
    All,
    /// The better half. Where blocks are selected, one that is almost as important as another may
    /// take its place, which changes the logits of some positions by more than rounding does.
    Half,
}

impl Positions {
    /// The largest error of a logit at these positions.
    fn error(self, exact: &[f64], actual: &[f64]) -> f64 {
        let rows = exact.chunks_exact(VOCABULARY).zip(actual.chunks_exact(VOCABULARY));
        let error = |(exact, actual): (&[f64], &[f64])| {
            worst(exact.iter().zip(actual).map(|(exact, actual)| (exact - actual).abs()))
        };
        let mut errors: Vec<f64> = rows.map(error).collect();
        errors.sort_by(f64::total_cmp);
        let last = match self {
            Self::All => errors.last(),
            Self::Half => errors.get(errors.len() / 2),
        };
        last.copied().unwrap_or(f64::INFINITY)
    }
}

fn check(
    context: &mut Context<'_>,
    (method, mode): (Method, AttentionMode),
    [heads, kv_heads, head_dim, block_size, counts]: [usize; 5],
    architecture: Architecture,
    positions: Positions,
) -> Result<(), InferError> {
    context.case(format!(
        "{method} {mode}{} HQ {heads} H {kv_heads} D {head_dim} {block_size}x{counts}",
        architecture.name()
    ));
    let budget = SparseBudget::new(block_size, counts).map_err(KernelError::from)?;
    let config = ModelConfig::new(ModelSettings {
        vocab_size: VOCABULARY,
        hidden_size: 128,
        intermediate_size: 192,
        num_hidden_layers: 2,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        max_position_embeddings: 512,
        // Large enough for attention that prefers some keys to others.
        initializer_range: 0.15,
        budget,
        window_size: if method.uses_window() { 32 } else { 0 },
        attention_method: method,
        gated: architecture.gated,
        qkv_bias: architecture.qkv_bias,
        qk_norm: architecture.qk_norm,
        bos_token_id: None,
        eos_token_id: vec![256],
        ..ModelSettings::ssa_1b()
    })?;
    let device = context.device();
    let mut model = Model::init(config, 7)?;
    vary_constants(&mut model)?;
    let model = model.to_device(device)?;
    let options = model.config().attention_options(mode);
    let texts: [Vec<u32>; 3] = [(); 3].map(|()| context.random().below(VOCABULARY as u32, TOKENS));

    // What the model computes over the whole text, exactly and on the device.
    let parameters = model.parameters().to_device(&Device::Cpu, ssa_kernels::DType::F32)?;
    let exact_model = Model::new(model.config().clone(), parameters)?;
    let logits = |model: &Model, text: &[u32]| -> Result<Vec<f64>, InferError> {
        let input = Input::rows(text.to_vec(), 1, TOKENS)?;
        let logits = model.logits(&model.forward(&input, &options)?)?.to_vec()?;
        let rows = &logits[(PROMPT - 1) * VOCABULARY..];
        Ok(rows.iter().map(|&logit| f64::from(logit)).collect())
    };
    let mut allowed = [0.0; 3];
    let mut exact = Vec::new();
    for (text, allowed) in texts.iter().zip(&mut allowed) {
        let (expected, plain) = (logits(&exact_model, text)?, logits(&model, text)?);
        *allowed = 2.0 * positions.error(&expected, &plain) + 0.02 * largest(&expected);
        exact.push(expected);
    }

    // All texts together, then each alone.
    let call =
        CallOptions { fill_change: FillChange::Refuse, ..CallOptions::new(&options, block_size)? };
    let decode = |texts: &[Vec<u32>]| -> Result<Vec<Vec<f32>>, InferError> {
        let inference = InferenceModel::new(&model, method)?;
        let mut engine = Engine::new(inference, block_size, 1024)?;
        let ids: Vec<SequenceId> = texts.iter().map(|_| engine.add_sequence()).collect();
        let mut rows = vec![Vec::new(); texts.len()];
        // The prompts are prefilled one by one: products of many rows depend on their number.
        for ((&id, text), rows) in ids.iter().zip(texts).zip(&mut rows) {
            let output = engine.forward(&[(id, &text[..PROMPT])], &call, Logits::Last)?;
            rows.extend(output.logits.to_vec()?);
        }
        for position in PROMPT..TOKENS {
            let chunks: Vec<(SequenceId, &[u32])> =
                ids.iter().zip(texts).map(|(&id, text)| (id, &text[position..=position])).collect();
            let logits = engine.forward(&chunks, &call, Logits::Last)?.logits.to_vec()?;
            rows.iter_mut()
                .zip(logits.chunks_exact(VOCABULARY))
                .for_each(|(rows, row)| rows.extend(row));
        }
        Ok(rows)
    };
    let together = decode(&texts)?;
    for ((rows, exact), allowed) in together.iter().zip(&exact).zip(allowed) {
        let rows: Vec<f64> = rows.iter().map(|&logit| f64::from(logit)).collect();
        context.outcome("logits", positions.error(exact, &rows), allowed);
    }
    let mut differ = 0;
    for (text, rows) in texts.iter().zip(&together) {
        let alone = decode(std::slice::from_ref(text))?;
        differ += rows.iter().zip(&alone[0]).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    }
    context.check("logits that differ in another batch", differ);
    if let Device::Cuda(_) = device {
        draws(context, &model, &texts[..2], &call)?;
    }
    Ok(())
}

/// Samplers whose draws are checked: greedy, and with every filter.
fn samplers() -> Result<[Sampler; 2], InferError> {
    let all = SamplingOptions {
        temperature: 0.9,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.2,
    };
    Ok([Sampler::GREEDY, Sampler::new(all, NoiseKey { seed: 5, request: 1 })?])
}

/// Steps that draw their tokens on the GPU, with and without steps that run ahead, and steps of
/// several tokens, against steps whose logits the host reads.
fn draws(
    context: &mut Context<'_>,
    model: &Model,
    texts: &[Vec<u32>],
    call: &CallOptions,
) -> Result<(), InferError> {
    const STEPS: usize = 40;
    let method = model.config().attention_method;
    let page_size = model.config().budget.block_size();
    let start = || -> Result<(Engine, Vec<SequenceId>), InferError> {
        let mut engine = Engine::new(InferenceModel::new(model, method)?, page_size, 640)?;
        let ids: Vec<SequenceId> = texts.iter().map(|_| engine.add_sequence()).collect();
        for (&id, text) in ids.iter().zip(texts) {
            engine.forward(&[(id, &text[..PROMPT])], call, Logits::None)?;
        }
        Ok((engine, ids))
    };
    for sampler in samplers()? {
        let draw = Draw { sampler: &sampler, vocabulary: VOCABULARY - 3 };
        let mut expected: Vec<Vec<u32>> =
            texts.iter().map(|text| text[..=PROMPT].to_vec()).collect();
        let (mut engine, ids) = start()?;
        for _ in 0..STEPS {
            let last = expected.iter().map(|text| &text[text.len() - 1..]);
            let chunks: Vec<_> = ids.iter().copied().zip(last).collect();
            let logits = engine.forward(&chunks, call, Logits::Last)?.logits.to_vec()?;
            for (text, row) in expected.iter_mut().zip(logits.chunks_exact(VOCABULARY)) {
                text.push(draw.token(row, text)?);
            }
        }
        for continues in [false, true] {
            let (mut engine, ids) = start()?;
            let mut differ = 0;
            for step in PROMPT..PROMPT + STEPS {
                let requests: Vec<DrawRequest<'_>> = ids
                    .iter()
                    .zip(&expected)
                    .map(|(&id, text)| DrawRequest { id, ids: &text[step..=step], draw })
                    .collect();
                let (drawn, _) = engine.draw(&requests, call, continues)?;
                let pairs = drawn.iter().zip(&expected);
                differ += pairs.filter(|(token, text)| **token != text[step + 1]).count();
            }
            let steps = if continues { "steps that run ahead" } else { "steps" };
            context.check(&format!("tokens of {steps} that differ"), differ);
            let tokens = ids.iter().map(|&id| engine.tokens(id).len());
            let wrong = tokens.filter(|&tokens| tokens != PROMPT + STEPS).count();
            context.check("lengths of sequences", wrong);
        }
        let (mut engine, ids) = start()?;
        let mut differ = 0;
        for first in (PROMPT..PROMPT + STEPS).step_by(5) {
            let requests: Vec<DrawRequest<'_>> = ids
                .iter()
                .zip(&expected)
                .map(|(&id, text)| DrawRequest { id, ids: &text[first..first + 5], draw })
                .collect();
            let (drawn, _) = engine.draw(&requests, call, false)?;
            let after = expected.iter().flat_map(|text| &text[first + 1..first + 6]);
            differ += drawn.iter().zip(after).filter(|(token, expected)| token != expected).count();
        }
        context.check("tokens of steps of several tokens that differ", differ);
    }
    Ok(())
}
