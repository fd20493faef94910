//! The decoder: embedding, layers, final norm and head.

mod training;

use std::path::Path;
use std::sync::Arc;

use ssa_kernels::ops::embedding::embedding_fwd;
use ssa_kernels::ops::linear::linear_fwd_f32;
use ssa_kernels::ops::rms_norm::rms_norm_fwd;
use ssa_kernels::ops::rope::RopeTable;
use ssa_kernels::{DType, Device, Documents, Tensor};

use crate::attention::AttentionContext;
use crate::error::{InputError, OptionsError};
use crate::layer::{self, LayerContext};
use crate::projection::QueryKeyValue;
use crate::rope::GrowingRopeTable;
use crate::{AttentionOptions, Input, Method, ModelConfig, Parameters, Result, checkpoint};

pub use training::Objective;

/// A language model: its configuration and weights.
pub struct Model {
    config: ModelConfig,
    parameters: Parameters,
    rope: Arc<GrowingRopeTable>,
}

/// The inputs of one layer's attention, shown to an observer of [`Model::forward_observed`].
pub struct LayerAttention<'a> {
    /// Index of the layer.
    pub layer: usize,
    /// Queries after RoPE `[B, T, HQ, D]`.
    pub q: &'a Tensor,
    /// Keys after RoPE `[B, T, H, D]`.
    pub k: &'a Tensor,
    /// Values `[B, T, H, D]`.
    pub v: &'a Tensor,
    /// Documents of the input.
    pub documents: &'a Documents,
    /// `head_dim^-0.5`.
    pub softmax_scale: f32,
}

impl Model {
    /// Creates a model from the given weights.
    ///
    /// # Errors
    /// If a weight does not have the shape that the configuration implies.
    pub fn new(config: ModelConfig, parameters: Parameters) -> Result<Self> {
        parameters.check(&config)?;
        let rope = Arc::new(GrowingRopeTable::new(&config)?);
        Ok(Self { config, parameters, rope })
    }

    /// Creates a model with random initial weights; the same seed gives the same weights.
    ///
    /// # Errors
    /// Same as [`Model::new`].
    pub fn init(config: ModelConfig, seed: u64) -> Result<Self> {
        let parameters = Parameters::init(&config, seed)?;
        Self::new(config, parameters)
    }

    /// Reads a checkpoint directory in Hugging Face layout.
    ///
    /// # Errors
    /// If a file is missing, corrupt or does not match the configuration; the error names it.
    pub fn load(directory: &Path) -> Result<Self> {
        let (config, parameters) = checkpoint::load(directory)?;
        Self::new(config, parameters)
    }

    /// Writes a checkpoint directory in Hugging Face layout.
    ///
    /// # Errors
    /// If a file cannot be written; the error names it.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let save = |parameters: &Parameters| checkpoint::save(directory, &self.config, parameters);
        match self.device() {
            Device::Cpu => save(&self.parameters),
            _ => save(&self.parameters.to_device(&Device::Cpu, DType::F32)?),
        }
    }

    /// Copies the model to a device, in the compute dtype of the device.
    ///
    /// # Errors
    /// [`ModelError::Kernel`](crate::ModelError::Kernel) if the device is out of memory.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let parameters = self.parameters.to_device(device, device.dtype())?;
        Ok(Self { config: self.config.clone(), parameters, rope: self.rope.clone() })
    }

    /// The device of the weights, which runs all ops.
    pub fn device(&self) -> Device {
        self.parameters.device()
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The weights.
    pub fn into_parameters(self) -> Parameters {
        self.parameters
    }

    /// The weights, mutable for an optimizer.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Returns the hidden states after the final norm, `[B, T, hidden]`.
    ///
    /// # Errors
    /// If ids are outside the vocabulary, documents are longer than the model's positions, or the
    /// method does not have the mode.
    pub fn forward(&self, input: &Input, options: &AttentionOptions) -> Result<Tensor> {
        self.forward_observed(input, options, &mut |_| Ok(()))
    }

    /// Runs [`Model::forward`] and calls `observer` with the attention inputs of every layer.
    ///
    /// # Errors
    /// Same as [`Model::forward`], and any error of the observer.
    pub fn forward_observed(
        &self,
        input: &Input,
        options: &AttentionOptions,
        observer: &mut dyn FnMut(LayerAttention<'_>) -> Result<()>,
    ) -> Result<Tensor> {
        self.check_gates(options.method)?;
        let plan = options.method.inference_plan(options.mode)?;
        let rows = Documents::rows(input.batch(), input.tokens())?;
        let rope = self.rope_for(input)?;
        let context = self.context(input, options, &rows, &rope);
        let mut x = self.embed(input)?;
        for (index, weights) in self.parameters.layers.iter().enumerate() {
            let observe = |qkv: &QueryKeyValue| {
                observer(LayerAttention {
                    layer: index,
                    q: &qkv.q,
                    k: &qkv.k,
                    v: &qkv.v,
                    documents: input.documents(),
                    softmax_scale: context.attention.softmax_scale,
                })
            };
            (x, _) = layer::forward(x, weights, &plan, &context, None, observe)?;
        }
        Ok(rms_norm_fwd(&x, &self.parameters.norm, context.rms_norm_eps)?.out)
    }

    /// Returns the next-token logits `[B, T, V]` of hidden states, in `f32` on every device.
    /// Training and evaluation do not use this: they fuse the head with the loss.
    ///
    /// # Errors
    /// If `hidden` does not have the model's width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(linear_fwd_f32(hidden, self.parameters.head())?)
    }

    /// Refuses a method that mixes or aligns gated outputs, if the model has no gates.
    pub(crate) fn check_gates(&self, method: Method) -> Result<()> {
        if self.config.gated || !method.needs_gates() {
            return Ok(());
        }
        Err(OptionsError::NoGates { method: method.name() }.into())
    }

    /// Embeds the ids of an input.
    pub(crate) fn embed(&self, input: &Input) -> Result<Tensor> {
        let shape = [input.batch(), input.tokens()];
        Ok(embedding_fwd(input.ids(), &self.parameters.embed_tokens, shape)?)
    }

    /// The RoPE table for the documents of an input.
    pub(crate) fn rope_for(&self, input: &Input) -> Result<Arc<RopeTable>> {
        let longest = input.documents().ranges().map(|range| range.len()).max().unwrap_or(0);
        let positions = self.config.max_position_embeddings;
        if longest > positions {
            return Err(InputError::DocumentTooLong { tokens: longest, positions }.into());
        }
        self.rope.covering(longest, &self.config)
    }

    /// What all layers of a call share.
    pub(crate) fn context<'a>(
        &self,
        input: &'a Input,
        options: &'a AttentionOptions,
        rows: &'a Documents,
        rope: &'a RopeTable,
    ) -> LayerContext<'a> {
        let attention = AttentionContext {
            options,
            documents: input.documents(),
            rows,
            rope,
            softmax_scale: self.config.softmax_scale(),
        };
        LayerContext { attention, rms_norm_eps: self.config.rms_norm_eps as f32 }
    }
}
