//! The parameters of one decoder block: which tensors there are, their names on disk and their
//! shapes.

use ssa_kernels::Tensor;

use crate::{ModelConfig, Result};

/// What the shapes of a block are made of, and which of its optional tensors exist.
pub(super) struct LayerShape {
    hidden: usize,
    /// HQ * D.
    query: usize,
    /// H * D.
    key_value: usize,
    /// D.
    head: usize,
    /// 3 * HQ.
    gates: usize,
    /// F.
    intermediate: usize,
    gated: bool,
    qkv_bias: bool,
    qk_norm: bool,
}

impl LayerShape {
    pub(super) fn new(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            query: config.num_attention_heads * config.head_dim,
            key_value: config.num_key_value_heads * config.head_dim,
            head: config.head_dim,
            gates: 3 * config.num_attention_heads,
            intermediate: config.intermediate_size,
            gated: config.gated,
            qkv_bias: config.qkv_bias,
            qk_norm: config.qk_norm,
        }
    }
}

/// The weights of the gates, within their layer.
pub(crate) const G_PROJ: &str = "self_attn.g_proj.weight";

/// A field of [`LayerParameters`]: a tensor, or one that some architectures lack.
trait Field: Sized {
    fn build<E>(exists: bool, make: impl FnOnce() -> Result<Tensor, E>) -> Result<Self, E>;

    fn try_map<E>(&self, make: impl FnOnce(&Tensor) -> Result<Tensor, E>) -> Result<Self, E>;

    fn tensor(&self) -> Option<&Tensor>;

    fn tensor_mut(&mut self) -> Option<&mut Tensor>;
}

impl Field for Tensor {
    fn build<E>(_: bool, make: impl FnOnce() -> Result<Tensor, E>) -> Result<Self, E> {
        make()
    }

    fn try_map<E>(&self, make: impl FnOnce(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        make(self)
    }

    fn tensor(&self) -> Option<&Tensor> {
        Some(self)
    }

    fn tensor_mut(&mut self) -> Option<&mut Tensor> {
        Some(self)
    }
}

impl Field for Option<Tensor> {
    fn build<E>(exists: bool, make: impl FnOnce() -> Result<Tensor, E>) -> Result<Self, E> {
        exists.then(make).transpose()
    }

    fn try_map<E>(&self, make: impl FnOnce(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        self.as_ref().map(make).transpose()
    }

    fn tensor(&self) -> Option<&Tensor> {
        self.as_ref()
    }

    fn tensor_mut(&mut self) -> Option<&mut Tensor> {
        self.as_mut()
    }
}

/// Declares [`LayerParameters`] from one table of documentation, field, name on disk and shape, so
/// that the four cannot disagree. An optional tensor exists `if` the architecture has it.
macro_rules! layer_parameters {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $Field:ty = $name:tt [$($size:ident),+] $(if $exists:ident)?;
    )+) => {
        /// The parameters of one decoder block. Matrices are `[outputs, inputs]`.
        #[derive(Debug)]
        pub struct LayerParameters {
            $($(#[doc = $doc])+ pub $field: $Field,)+
        }

        impl LayerParameters {
            /// Makes every tensor from its name within the layer and its shape.
            pub(super) fn build<E>(
                shape: &LayerShape,
                mut make: impl FnMut(&str, &[usize]) -> Result<Tensor, E>,
            ) -> Result<Self, E> {
                Ok(Self {
                    $($field: Field::build(true $(&& shape.$exists)?, || {
                        make($name, &[$(shape.$size),+])
                    })?,)+
                })
            }

            pub(super) fn try_map<E>(
                &self,
                mut make: impl FnMut(&str, &Tensor) -> Result<Tensor, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($field: self.$field.try_map(|tensor| make($name, tensor))?,)+ })
            }

            pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
                let fields = [$(($name, self.$field.tensor())),+];
                fields.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)))
            }

            pub(super) fn named_mut(
                &mut self,
            ) -> impl Iterator<Item = (&'static str, &mut Tensor)> {
                let fields = [$(($name, self.$field.tensor_mut())),+];
                fields.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)))
            }
        }
    };
}

layer_parameters! {
    /// RMS-norm weight before attention, `[hidden]`.
    input_layernorm: Tensor = "input_layernorm.weight" [hidden];
    /// Queries, `[HQ * D, hidden]`.
    q_proj: Tensor = "self_attn.q_proj.weight" [query, hidden];
    /// Bias of the queries, `[HQ * D]`.
    q_bias: Option<Tensor> = "self_attn.q_proj.bias" [query] if qkv_bias;
    /// Keys, `[H * D, hidden]`.
    k_proj: Tensor = "self_attn.k_proj.weight" [key_value, hidden];
    /// Bias of the keys, `[H * D]`.
    k_bias: Option<Tensor> = "self_attn.k_proj.bias" [key_value] if qkv_bias;
    /// Values, `[H * D, hidden]`.
    v_proj: Tensor = "self_attn.v_proj.weight" [key_value, hidden];
    /// Bias of the values, `[H * D]`.
    v_bias: Option<Tensor> = "self_attn.v_proj.bias" [key_value] if qkv_bias;
    /// RMS-norm weight of every query head, before RoPE, `[D]`.
    q_norm: Option<Tensor> = "self_attn.q_norm.weight" [head] if qk_norm;
    /// RMS-norm weight of every key head, before RoPE, `[D]`.
    k_norm: Option<Tensor> = "self_attn.k_norm.weight" [head] if qk_norm;
    /// Attention output, `[hidden, HQ * D]`.
    o_proj: Tensor = "self_attn.o_proj.weight" [hidden, query];
    /// Gates, `[3 * HQ, hidden]`: rows 3h, 3h+1 and 3h+2 gate the compression, selection (and full
    /// attention) and window of query head h. It has all three for every method, as published
    /// checkpoints do; rows of branches that a method lacks take no part in the model and get no
    /// gradient. A plain Llama, Mistral or Qwen has no gates.
    g_proj: Option<Tensor> = G_PROJ [gates, hidden] if gated;
    /// RMS-norm weight before the feed-forward layer, `[hidden]`.
    post_attention_layernorm: Tensor = "post_attention_layernorm.weight" [hidden];
    /// Feed-forward gate, `[F, hidden]`.
    gate_proj: Tensor = "mlp.gate_proj.weight" [intermediate, hidden];
    /// Feed-forward input, `[F, hidden]`.
    up_proj: Tensor = "mlp.up_proj.weight" [intermediate, hidden];
    /// Feed-forward output, `[hidden, F]`.
    down_proj: Tensor = "mlp.down_proj.weight" [hidden, intermediate];
}
