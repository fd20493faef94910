//! The parameters of a model: its tensors, their names on disk and their shapes.

mod init;
mod layer;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use ssa_kernels::{DType, Device, Tensor};

use crate::{ModelConfig, ModelError, Result};

pub use layer::LayerParameters;

pub(crate) use layer::G_PROJ;

use layer::LayerShape;

const EMBED_TOKENS: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
pub(crate) const LM_HEAD: &str = "lm_head.weight";

fn layer_tensor(layer: usize, name: &str) -> String {
    format!("model.layers.{layer}.{name}")
}

/// All parameters of a model, or one buffer of the same shape per parameter (gradients, optimizer
/// moments).
#[derive(Debug)]
pub struct Parameters {
    /// Embedding matrix `[V, hidden]`; also the output layer if tied.
    pub embed_tokens: Tensor,
    /// The decoder blocks, first to last.
    pub layers: Vec<LayerParameters>,
    /// Weight of the final RMS norm, `[hidden]`.
    pub norm: Tensor,
    /// Output layer `[V, hidden]`; `None` if tied to the embedding.
    pub lm_head: Option<Tensor>,
}

impl Parameters {
    /// Zeros.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if a tensor would need more than `isize::MAX` bytes.
    pub fn zeros(config: &ModelConfig) -> Result<Self> {
        Self::build(config, |_, shape| Ok(Tensor::zeros(shape)?))
    }

    /// Zeros on a device: gradients and moments are `f32` on every device.
    ///
    /// # Errors
    /// Same as [`Parameters::zeros`], and if the device does not support this dtype.
    pub fn zeros_on(config: &ModelConfig, device: &Device, dtype: DType) -> Result<Self> {
        Self::zeros_for(config, device, dtype, |_| true)
    }

    /// As [`Parameters::zeros_on`] for the parameters whose name is `kept`, and tensors without
    /// elements for the others: the gradients and moments of a model of which parts are frozen.
    ///
    /// # Errors
    /// As [`Parameters::zeros_on`].
    pub fn zeros_for(
        config: &ModelConfig,
        device: &Device,
        dtype: DType,
        kept: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        Self::build(config, |name, shape| match kept(name) {
            true => Ok(Tensor::zeros_on(device, dtype, shape)?),
            false => Ok(Tensor::default()),
        })
    }

    /// Whether two sets of parameters have the same names, shapes, dtypes and elements.
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

    /// Maps every tensor; `make` gets its name on disk.
    ///
    /// # Errors
    /// The first error of `make`.
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

    /// Copies the parameters to a device.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if the device is out of memory.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<Self> {
        self.try_map(|_, tensor| Ok(tensor.to_device(device, dtype)?))
    }

    /// Their device.
    pub fn device(&self) -> Device {
        self.embed_tokens.device()
    }

    /// Creates every tensor from its name on disk and its shape, in the order of
    /// [`Parameters::named`].
    pub(crate) fn build<E>(
        config: &ModelConfig,
        mut make: impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let shape = LayerShape::new(config);
        let embedding = [config.vocab_size, config.hidden_size];
        Ok(Self {
            embed_tokens: make(EMBED_TOKENS, &embedding)?,
            layers: (0..config.num_hidden_layers)
                .map(|layer| {
                    LayerParameters::build(&shape, |name, shape| {
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

    /// Every tensor with its Hugging Face name: embedding, blocks, final norm, output layer. The
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

    /// Like [`Parameters::named`], but mutable.
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

    /// Like [`Parameters::head`], but mutable: the place for the gradient of the output layer.
    pub fn head_mut(&mut self) -> &mut Tensor {
        self.lm_head.as_mut().unwrap_or(&mut self.embed_tokens)
    }

    /// Number of parameters.
    pub fn count(&self) -> usize {
        self.named().iter().map(|(_, tensor)| tensor.len()).sum()
    }

    /// The name of the first tensor that holds NaN or an infinity.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] if their device fails.
    pub fn first_not_finite(&self) -> Result<Option<String>> {
        for (name, tensor) in self.named() {
            if !tensor.to_vec()?.iter().all(|value| value.is_finite()) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Checks that these are the tensors of a model of this configuration.
    ///
    /// # Errors
    /// [`ModelError::Parameters`] with the first tensor that is missing, unexpected or has a
    /// different shape.
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

/// Number of parameters of a model, with tied ones counted once. Allocates nothing.
pub fn parameter_count(config: &ModelConfig) -> u64 {
    let elements = |shape: &[usize]| shape.iter().map(|&size| size as u64).product::<u64>();
    parameter_shapes(config).iter().map(|(_, shape)| elements(shape)).sum()
}

/// Name and shape of every parameter of a model, in the order of [`Parameters::named`]. Allocates
/// nothing.
pub fn parameter_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let record = |name: &str, shape: &[usize]| {
        shapes.push((name.to_owned(), shape.to_vec()));
        Ok::<_, Infallible>(Tensor::default())
    };
    let Ok(_) = Parameters::build(config, record);
    shapes
}
