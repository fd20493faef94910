//! What `ssa generate` and `ssa chat` share: a model ready to generate.

mod attention;
mod sampling;
mod summary;
mod text;

use std::path::Path;

use anyhow::Result;
use ssa_data::Tokenizer;
use ssa_infer::{
    Engine, GenerationDefaults, GenerationEngine, GenerationLimits, GenerationOptions,
    GenerationRequest, InferenceModel, NoiseKey, Sampler, SamplingOptions, SequenceId,
};
use ssa_kernels::Device;

use self::attention::Attention;
use super::free_memory::free_memory;
use super::model::{self, LoadedModel};
use super::{held_out, memory};
use crate::args::{DeviceChoice, GenerationArgs};

pub(super) use summary::Summary;
pub(super) use text::TextStream;

/// A model with its tokenizer and the settings of the command line.
pub(super) struct Generator {
    model: InferenceModel,
    pub(super) tokenizer: Tokenizer,
    pub(super) attention: Attention,
    sampling: SamplingOptions,
    noise: NoiseKey,
    drafts: usize,
    /// Tokens that end a text.
    eos_token_ids: Vec<u32>,
}

impl Generator {
    pub(super) fn load(args: &GenerationArgs, device: DeviceChoice) -> Result<Self> {
        let LoadedModel { model, directory } = model::load_for_inference(&args.model, device)?;
        let config = model.config();
        let tokenizer = held_out::tokenizer_of(&directory, config)?;
        let attention = Attention::choose(args, config)?;
        let defaults = defaults(&directory, &config.eos_token_id, &tokenizer)?;
        Ok(Self {
            model: model::inference(&model)?,
            tokenizer,
            attention,
            sampling: sampling::choose(args, &defaults.sampling)?,
            noise: NoiseKey { seed: args.seed, request: 0 },
            drafts: args.speculate.unwrap_or(0),
            eos_token_ids: defaults.eos_token_ids,
        })
    }

    /// The most tokens of a sequence.
    pub(super) fn context_length(&self) -> usize {
        self.model.config().max_position_embeddings
    }

    pub(super) fn device(&self) -> &Device {
        self.model.device()
    }

    /// The ids of a prompt. A model with a token for the beginning of a text gets the one that its
    /// tokenizer puts there.
    pub(super) fn encode_prompt(&self, text: &[u8]) -> Result<Vec<u32>> {
        Ok(match self.model.config().bos_token_id {
            Some(_) => self.tokenizer.encode_prompt(text)?,
            None => self.tokenizer.encode(text)?,
        })
    }

    /// An engine whose cache has room for so many tokens, at most the model's context.
    pub(super) fn into_engine(self, tokens: usize) -> Result<(GenerationEngine, Settings)> {
        let context = self.context_length();
        let tokens = tokens.saturating_add(self.drafts).min(context);
        let bytes = self.bytes_per_token().saturating_mul(tokens);
        memory::require(self.device(), bytes, "the cache of keys and values", |_| {
            "use a shorter prompt, or a smaller --max-tokens".to_owned()
        })?;
        self.build(tokens, context)
    }

    /// An engine whose cache has room for the model's context, or as much of it as fits into
    /// memory.
    pub(super) fn into_largest_engine(self) -> Result<(GenerationEngine, Settings)> {
        let context = self.context_length();
        let tokens = match free_memory(self.device(), 1)? {
            None => context,
            Some(free) => {
                let usable = free as usize / 10 * 9;
                context.min(usable / self.bytes_per_token().max(1))
            }
        };
        self.build(tokens, tokens)
    }

    fn bytes_per_token(&self) -> usize {
        Engine::bytes_per_token(&self.model, self.attention.page_size)
    }

    fn build(self, tokens: usize, context_length: usize) -> Result<(GenerationEngine, Settings)> {
        let Self { model, attention, .. } = self;
        let engine = Engine::new(model, attention.page_size, tokens)?;
        let settings = Settings {
            tokenizer: self.tokenizer,
            attention,
            sampler: Sampler::new(self.sampling, self.noise)?,
            // Between two chunks, Ctrl-C is seen.
            options: GenerationOptions { chunk_tokens: engine.chunk_tokens(), drafts: self.drafts },
            eos_token_ids: self.eos_token_ids,
            context_length,
        };
        Ok((GenerationEngine::new(engine, attention.target, attention.draft), settings))
    }
}

/// How texts are generated.
pub(super) struct Settings {
    pub(super) tokenizer: Tokenizer,
    pub(super) attention: Attention,
    sampler: Sampler,
    pub(super) options: GenerationOptions,
    eos_token_ids: Vec<u32>,
    context_length: usize,
}

impl Settings {
    /// A request to continue a sequence.
    pub(super) fn request(
        &self,
        sequence: SequenceId,
        prompt: Vec<u32>,
        max_tokens: usize,
    ) -> Result<GenerationRequest<SequenceId>> {
        let limits = GenerationLimits {
            max_tokens,
            context_length: self.context_length,
            eos_token_ids: &self.eos_token_ids,
            vocabulary: self.tokenizer.vocab_size(),
        };
        Ok(GenerationRequest::new(sequence, prompt, self.sampler.clone(), &limits)?)
    }
}

/// What the checkpoint recommends. The tokenizer's token for the end of a text counts in any case:
/// that of a chat model often differs from the model's.
pub(super) fn defaults(
    directory: &Path,
    eos_token_ids: &[u32],
    tokenizer: &Tokenizer,
) -> Result<GenerationDefaults> {
    let mut defaults = GenerationDefaults::read(directory, eos_token_ids)?;
    if !defaults.eos_token_ids.contains(&tokenizer.eos()) {
        defaults.eos_token_ids.push(tokenizer.eos());
    }
    Ok(defaults)
}
