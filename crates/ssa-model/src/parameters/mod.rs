//! The parameters of a model: which tensors there are, their names on disk and their shapes.

mod init;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::convert::Infallible;

use ssa_kernels::{DType, Device, Tensor};

use crate::{ModelConfig, ModelError, Result};

/// The sizes that shapes are made of.
struct Sizes {
    hidden: usize,
    /// HQ * D.
    query: usize,
    /// H * D.
    key_value: usize,
    /// 3 * HQ.
    gates: usize,
    /// F.
    intermediate: usize,
}

impl Sizes {
    fn new(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            query: config.num_attention_heads * config.head_dim,
            key_value: config.num_key_value_heads * config.head_dim,
            gates: 3 * config.num_attention_heads,
            intermediate: config.intermediate_size,
        }
    }
}

/// Declares [`LayerParameters`] from one table of documentation, field, name on disk and shape, so
/// that the four cannot disagree.
macro_rules! layer_parameters {
    ($($(#[doc = $doc:literal])+ $field:ident: $name:tt [$($size:ident),+];)+) => {
        /// The parameters of one decoder block. Matrices are `[outputs, inputs]`.
        #[derive(Clone, Debug)]
        pub struct LayerParameters {
            $($(#[doc = $doc])+ pub $field: Tensor,)+
        }

        impl LayerParameters {
            /// Makes every tensor from its name within the layer and its shape.
            fn build<E>(
                sizes: &Sizes,
                mut make: impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($field: make($name, &[$(sizes.$size),+])?,)+ })
            }

            fn try_map<E>(
                &self,
                mut make: impl FnMut(&str, &Tensor) -> Result<Tensor, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($field: make($name, &self.$field)?,)+ })
            }

            fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
                [$(($name, &self.$field)),+].into_iter()
            }

            fn named_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Tensor)> {
                [$(($name, &mut self.$field)),+].into_iter()
            }
        }
    };
}

layer_parameters! {
    /// RMS-norm weight before attention, `[hidden]`.
    input_layernorm: "input_layernorm.weight" [hidden];
    /// Queries, `[HQ * D, hidden]`.
    q_proj: "self_attn.q_proj.weight" [query, hidden];
    /// Keys, `[H * D, hidden]`.
    k_proj: "self_attn.k_proj.weight" [key_value, hidden];
    /// Values, `[H * D, hidden]`.
    v_proj: "self_attn.v_proj.weight" [key_value, hidden];
    /// Attention output, `[hidden, HQ * D]`.
    o_proj: "self_attn.o_proj.weight" [hidden, query];
    /// Gates, `[3 * HQ, hidden]`: rows 3h, 3h+1 and 3h+2 gate the compression, selection (and full
    /// attention) and window of query head h. It has all three for every method, as published
    /// checkpoints do; rows of branches that a method lacks take no part in the model and get no
    /// gradient.
    g_proj: G_PROJ [gates, hidden];
    /// RMS-norm weight before the feed-forward layer, `[hidden]`.
    post_attention_layernorm: "post_attention_layernorm.weight" [hidden];
    /// Feed-forward gate, `[F, hidden]`.
    gate_proj: "mlp.gate_proj.weight" [intermediate, hidden];
    /// Feed-forward input, `[F, hidden]`.
    up_proj: "mlp.up_proj.weight" [intermediate, hidden];
    /// Feed-forward output, `[hidden, F]`.
    down_proj: "mlp.down_proj.weight" [hidden, intermediate];
}

const EMBED_TOKENS: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
/// Gate weights, within their layer.
pub(crate) const G_PROJ: &str = "self_attn.g_proj.weight";
pub(crate) const LM_HEAD: &str = "lm_head.weight";

fn layer_tensor(layer: usize, name: &str) -> String {
    format!("model.layers.{layer}.{name}")
}

/// All parameters of a model, or one buffer of the same shape per parameter: gradients and
/// optimizer moments.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Embedding matrix `[V, hidden]`, and the output layer where that is tied to it.
    pub embed_tokens: Tensor,
    /// The decoder blocks, first to last.
    pub layers: Vec<LayerParameters>,
    /// Weight of the last RMS norm, `[hidden]`.
    pub norm: Tensor,
    /// Output layer `[V, hidden]`; `None` if tied to the embedding.
    pub lm_head: Option<Tensor>,
}

impl Parameters {
    /// Zeros.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if a tensor would take more than `isize::MAX` bytes.
    pub fn zeros(config: &ModelConfig) -> Result<Self> {
        Self::build(config, |_, shape| Ok(Tensor::zeros(shape)?))
    }

    /// Zeros on a device: gradients and moments are `f32` on every device.
    ///
    /// # Errors
    /// As [`Parameters::zeros`], and if the device does not hold elements of this type.
    pub fn zeros_on(config: &ModelConfig, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(config, |_, shape| Ok(Tensor::zeros_on(device, dtype, shape)?))
    }

    /// Whether two sets of parameters have the same names, shapes, types and elements.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if a device that holds one of them fails.
    pub fn same_elements(&self, other: &Self) -> Result<bool> {
        let (ours, theirs) = (self.named(), other.named());
        let mut same = ours.len() == theirs.len();
        for ((name, tensor), (other_name, other)) in ours.into_iter().zip(theirs) {
            same = same && name == other_name && tensor.same_elements(other)?;
        }
        Ok(same)
    }

    /// Makes another tensor of every tensor; `make` gets its name on disk.
    ///
    /// # Errors
    /// The first of `make`.
    pub fn try_map<E>(
        &self,
        mut make: impl FnMut(&str, &Tensor) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            embed_tokens: make(EMBED_TOKENS, &self.embed_tokens)?,
            layers: (0..)
                .zip(&self.layers)
                .map(|(layer, tensors)| {
                    tensors.try_map(|name, tensor| make(&layer_tensor(layer, name), tensor))
                })
                .collect::<Result<_, _>>()?,
            norm: make(NORM, &self.norm)?,
            lm_head: self.lm_head.as_ref().map(|tensor| make(LM_HEAD, tensor)).transpose()?,
        })
    }

    /// A copy on a device.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if the device is out of memory.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<Self> {
        self.try_map(|_, tensor| Ok(tensor.to_device(device, dtype)?))
    }

    /// These parameters on the CPU: a copy if they are on another device.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if their device fails.
    pub fn on_host(&self) -> Result<Cow<'_, Self>> {
        match self.device() {
            Device::Cpu => Ok(Cow::Borrowed(self)),
            _ => Ok(Cow::Owned(self.to_device(&Device::Cpu, DType::F32)?)),
        }
    }

    /// Their device.
    pub fn device(&self) -> Device {
        self.embed_tokens.device()
    }

    /// Makes every tensor from its name on disk and its shape, in the order of
    /// [`Parameters::named`].
    pub(crate) fn build<E>(
        config: &ModelConfig,
        mut make: impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let sizes = Sizes::new(config);
        let embedding = [config.vocab_size, config.hidden_size];
        Ok(Self {
            embed_tokens: make(EMBED_TOKENS, &embedding)?,
            layers: (0..config.num_hidden_layers)
                .map(|layer| {
                    LayerParameters::build(&sizes, |name, shape| {
                        make(&layer_tensor(layer, name), shape)
                    })
                })
                .collect::<Result<_, _>>()?,
            norm: make(NORM, &[config.hidden_size])?,
            lm_head: if config.tie_word_embeddings {
                None
            } else {
                Some(make(LM_HEAD, &embedding)?)
            },
        })
    }

    /// Every tensor with its Hugging Face name: embedding, blocks, last norm, output layer. The
    /// order never changes.
    pub fn named(&self) -> Vec<(String, &Tensor)> {
        let mut named = vec![(EMBED_TOKENS.to_owned(), &self.embed_tokens)];
        for (layer, parameters) in self.layers.iter().enumerate() {
            named.extend(
                parameters.named().map(|(name, tensor)| (layer_tensor(layer, name), tensor)),
            );
        }
        named.push((NORM.to_owned(), &self.norm));
        named.extend(self.lm_head.as_ref().map(|tensor| (LM_HEAD.to_owned(), tensor)));
        named
    }

    /// As [`Parameters::named`], writable.
    pub fn named_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let mut named = vec![(EMBED_TOKENS.to_owned(), &mut self.embed_tokens)];
        for (layer, parameters) in self.layers.iter_mut().enumerate() {
            named.extend(
                parameters.named_mut().map(|(name, tensor)| (layer_tensor(layer, name), tensor)),
            );
        }
        named.push((NORM.to_owned(), &mut self.norm));
        named.extend(self.lm_head.as_mut().map(|tensor| (LM_HEAD.to_owned(), tensor)));
        named
    }

    /// The matrix of the output layer.
    pub fn head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// As [`Parameters::head`], writable: where the gradient of the output layer belongs.
    pub fn head_mut(&mut self) -> &mut Tensor {
        self.lm_head.as_mut().unwrap_or(&mut self.embed_tokens)
    }

    /// Number of parameters.
    pub fn count(&self) -> usize {
        self.named().iter().map(|(_, tensor)| tensor.len()).sum()
    }

    /// Checks that these are the tensors of a model of this configuration.
    ///
    /// # Errors
    /// [`ModelError::Parameters`] with the first tensor that is missing, too many or of another
    /// shape.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let expected = parameter_shapes(config);
        let actual: Vec<_> = self
            .named()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.shape().to_vec()))
            .collect();
        let places = expected.len().max(actual.len());
        let Some(place) = (0..places).find(|&place| expected.get(place) != actual.get(place))
        else {
            return Ok(());
        };
        let describe = |list: &[(String, Vec<usize>)]| match list.get(place) {
            Some((name, shape)) => format!("`{name}` {shape:?}"),
            None => "no more tensors".to_owned(),
        };
        let problem = format!("found {}, expected {}", describe(&actual), describe(&expected));
        Err(ModelError::Parameters { problem })
    }

    /// Sets every element to zero.
    pub fn fill_zero(&mut self) {
        for (_, tensor) in self.named_mut() {
            tensor.fill_zero();
        }
    }
}

/// Number of parameters of a model, tied ones counted once, without making any.
pub fn parameter_count(config: &ModelConfig) -> u64 {
    let elements = |shape: &[usize]| shape.iter().map(|&size| size as u64).product::<u64>();
    parameter_shapes(config).iter().map(|(_, shape)| elements(shape)).sum()
}

/// Name and shape of every parameter of a model, in the order of [`Parameters::named`], without
/// making any.
pub fn parameter_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let record = |name: &str, shape: &[usize]| {
        shapes.push((name.to_owned(), shape.to_vec()));
        Ok::<_, Infallible>(Tensor::default())
    };
    let Ok(_) = Parameters::build(config, record);
    shapes
}
