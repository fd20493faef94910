//! A model for inference.

use std::sync::Arc;

use ssa_kernels::ops::linear::{LinearWeight, linear_rows_fwd};
use ssa_kernels::ops::rms_norm::rms_norm_fwd;
use ssa_kernels::ops::step::StepOutput;
use ssa_kernels::{DType, Device, Tensor};
use ssa_model::{GrowingRopeTable, Method, Model, ModelConfig, ModelSettings};

use crate::Result;
use crate::layer::InferenceLayer;
use crate::weights::packed;

/// The most sequences of a decoding step on a GPU: products of more rows are faster as those of a
/// prompt.
pub const MOST_STEP_SEQUENCES: usize = 64;

/// The weights of a model, laid out for inference.
///
/// On the CPU a matrix whose elements are all `bf16` numbers is kept in `bf16`, which halves the
/// bytes that a decoding step reads and changes no result; any other in `f32`.
pub struct InferenceModel {
    config: ModelConfig,
    method: Method,
    device: Device,
    pub(crate) embedding: Arc<LinearWeight>,
    pub(crate) layers: Arc<[InferenceLayer]>,
    pub(crate) norm: Tensor,
    /// `None` if tied to the embedding.
    pub(crate) head: Option<Arc<LinearWeight>>,
    pub(crate) rope: GrowingRopeTable,
}

impl InferenceModel {
    /// Lays out the weights of a model to run the attentions of `method`, on its device.
    ///
    /// # Errors
    /// [`InferError::Kernel`](crate::InferError::Kernel) if the device is out of memory or cannot
    /// run a model from a cache.
    pub fn new(model: &Model, method: Method) -> Result<Self> {
        let (config, parameters) = (model.config().clone(), model.parameters());
        let layers = parameters.layers.iter();
        let layers = layers.map(|layer| InferenceLayer::new(layer, method));
        let head = parameters.lm_head.as_ref().map(|head| packed(&[head])).transpose()?;
        Ok(Self {
            device: model.device(),
            embedding: Arc::new(packed(&[&parameters.embed_tokens])?),
            layers: layers.collect::<Result<_>>()?,
            norm: parameters.norm.try_clone()?,
            head: head.map(Arc::new),
            rope: GrowingRopeTable::new(&config)?,
            method,
            config,
        })
    }

    /// The same weights, shared, with the RoPE and the number of positions of another
    /// configuration.
    ///
    /// # Errors
    /// [`InferError::Model`](crate::InferError::Model) if the two configurations do not fit.
    pub fn with_rope(&self, config: &ModelConfig) -> Result<Self> {
        let config = ModelConfig::new(ModelSettings {
            rope_theta: config.rope_theta,
            rope_scaling: config.rope_scaling.clone(),
            max_position_embeddings: config.max_position_embeddings,
            ..self.config.settings()
        })?;
        Ok(Self {
            method: self.method,
            device: self.device.clone(),
            embedding: Arc::clone(&self.embedding),
            layers: Arc::clone(&self.layers),
            norm: self.norm.try_clone()?,
            head: self.head.clone(),
            rope: GrowingRopeTable::new(&config)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The method whose attentions it runs.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The device of the weights, where everything is computed.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of weights that a decoding step reads.
    pub fn weight_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(InferenceLayer::weight_bytes).sum();
        layers + self.head.as_ref().unwrap_or(&self.embedding).bytes()
    }

    /// Outputs of all projections of the input of an attention.
    pub(crate) fn projection_width(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.projections.outputs().iter().sum())
    }

    /// Hidden states `[1, rows, hidden]` after the final norm.
    pub(crate) fn normed(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(rms_norm_fwd(hidden, &self.norm, self.config.rms_norm_eps as f32)?.out)
    }

    /// The logits `[rows, V]` of hidden states `[1, rows, hidden]`, in `f32`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let (rows, eps) = (hidden.rows(), self.config.rms_norm_eps as f32);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let shape = [rows, self.config.vocab_size];
        if self.device == Device::Cpu {
            let hidden = self.normed(hidden)?;
            return Ok(linear_rows_fwd(&hidden, head)?.swap_remove(0).reshape(shape)?);
        }
        let mut logits = Vec::with_capacity(rows * self.config.vocab_size);
        for first in (0..rows).step_by(MOST_STEP_SEQUENCES) {
            let part = hidden.rows_range(first..rows.min(first + MOST_STEP_SEQUENCES))?;
            let shape = [part.rows(), self.config.vocab_size];
            let mut out = Tensor::zeros_on(&self.device, DType::F32, shape)?;
            head.step(&part, Some((&self.norm, eps)), StepOutput::F32(&mut out))?;
            logits.extend(out.into_vec()?);
        }
        Ok(Tensor::from_vec(logits, shape)?)
    }
}
