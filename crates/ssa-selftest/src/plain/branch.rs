//! One attention of a layer, after `method/kinds/` of the model's crate.

use ssa_kernels::Documents;
use ssa_kernels::ops::attention::pooling;
use ssa_kernels::ops::attention::reference::AttentionInputs;
use ssa_kernels::ops::attention::selection::{
    BlockIndices, HostBlockIndices, reference as selection,
};
use ssa_kernels::ops::gate::{GateBranch, reference as gate};
use ssa_model::{AttentionOptions, DocumentMasking, LayerParameters, ModelConfig, ModelError};

use super::Rounding;
use super::attention::{self, Roundings, Visible};

/// The kinds of attention that have a reference here.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Full,
    Sparse,
    Compression,
    Window,
}

ssa_names::names!(Kind: "attention" {
    Full = "full",
    Sparse = "sparse",
    Compression = "compression",
    Window = "window",
});

impl Kind {
    pub(super) fn gate(self) -> GateBranch {
        match self {
            Self::Full | Self::Sparse => GateBranch::Selection,
            Self::Compression => GateBranch::Compression,
            Self::Window => GateBranch::Window,
        }
    }
}

/// What stays the same over all layers.
pub(super) struct Shared<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) options: &'a AttentionOptions,
    pub(super) documents: &'a Documents,
    pub(super) rows: Documents,
    pub(super) rounding: Rounding,
}

/// An attention and its result.
pub(super) struct Branch {
    pub(super) kind: Kind,
    pub(super) contributes: bool,
    visible: Visible,
    /// Means of blocks where it attends to those.
    pooled: Option<[Vec<f64>; 2]>,
    pub(super) out: Vec<f64>,
    pub(super) gate: Vec<f64>,
    pub(super) gated: Vec<f64>,
}

/// The importance of the blocks to a layer: by token and key/value head, of every block before the
/// token's own.
pub(crate) type Importance = Vec<Vec<f64>>;

impl Shared<'_> {
    pub(super) fn branch(
        &self,
        (kind, contributes): (Kind, bool),
        visible: Visible,
        norm: &[f64],
        qkv: &[Vec<f64>; 3],
        weights: &LayerParameters,
    ) -> Result<Branch, ModelError> {
        let documents = self.documents_of(kind);
        let mean =
            |x| pooling::reference::forward(x, documents, self.block_size(), self.kv_width());
        let pooled = match kind {
            Kind::Compression => {
                let [k, v] = [mean(&qkv[1])?, mean(&qkv[2])?];
                Some([k, v].map(|means| self.rounding.matrix(means)))
            }
            _ => None,
        };
        let inputs = self.inputs(qkv, pooled.as_ref());
        let (out, _) = attention::forward(&inputs, &visible, self.roundings(kind));
        let gate = match &weights.g_proj {
            Some(g_proj) => self.rounding.gate(norm, g_proj, kind.gate())?,
            None => vec![1.0; out.len() / self.config.head_dim],
        };
        let gated = self.rounding.matrix(gate::apply_forward(&out, &gate, self.config.head_dim)?);
        Ok(Branch { kind, contributes, visible, pooled, out, gate, gated })
    }

    /// By exact means of the keys, as programs find it that keep those in `f32`.
    pub(super) fn importance(&self, [q, k, _]: &[Vec<f64>; 3]) -> Result<Importance, ModelError> {
        let documents = self.documents_of(Kind::Sparse);
        let k_pooled =
            pooling::reference::forward(k, documents, self.block_size(), self.kv_width())?;
        let inputs = selection::SelectionInputs {
            q,
            k_pooled: &k_pooled,
            q_heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            softmax_scale: f64::from(self.config.softmax_scale()),
        };
        Ok(selection::importance(&inputs, documents, self.block_size())?)
    }

    pub(super) fn select(&self, importance: &Importance) -> Result<HostBlockIndices, ModelError> {
        let options = &self.options.selection;
        let mut rows: Vec<_> =
            importance.iter().map(|row| selection::select(row, options)).collect();
        let slots = rows.iter().map(Vec::len).max().unwrap_or(1);
        rows.iter_mut().for_each(|row| row.resize(slots, -1));
        let (documents, kv_heads) =
            (self.documents_of(Kind::Sparse), self.config.num_key_value_heads);
        let (rows, size) = (rows.concat(), self.block_size());
        Ok(BlockIndices::from_vec(rows, documents, kv_heads, size, slots)?.to_host()?)
    }

    /// Gradients of q, k and v.
    pub(super) fn branch_backward(
        &self,
        branch: &Branch,
        dout: &[f64],
        qkv: &[Vec<f64>; 3],
    ) -> Result<[Vec<f64>; 3], ModelError> {
        let inputs = self.inputs(qkv, branch.pooled.as_ref());
        let roundings = self.roundings(branch.kind);
        let grads = attention::backward(dout, &branch.out, &inputs, &branch.visible, roundings);
        if branch.pooled.is_none() {
            return Ok(grads);
        }
        let documents = self.documents_of(branch.kind);
        let spread = |values: Vec<f64>| -> Result<_, ModelError> {
            let dx = pooling::reference::backward(
                &values,
                documents,
                self.block_size(),
                self.kv_width(),
            )?;
            Ok(self.rounding.matrix(dx))
        };
        let [dq, dk, dv] = grads;
        Ok([dq, spread(dk)?, spread(dv)?])
    }

    fn inputs<'b>(
        &self,
        [q, k, v]: &'b [Vec<f64>; 3],
        pooled: Option<&'b [Vec<f64>; 2]>,
    ) -> AttentionInputs<'b> {
        let [k, v] = pooled.map_or([k, v], |[k, v]| [k, v]);
        AttentionInputs {
            q,
            k,
            v,
            q_heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            softmax_scale: f64::from(self.config.softmax_scale()),
        }
    }

    /// Two programs never round alike inside: one that sees all tokens together has other largest
    /// scores on its way, and so other units of its probabilities, than one that walks through
    /// blocks.
    fn roundings(&self, kind: Kind) -> Roundings {
        let inside =
            if kind == Kind::Sparse { self.rounding.in_other_units(1.5) } else { self.rounding };
        Roundings { inside, result: self.rounding }
    }

    pub(super) fn documents_of(&self, kind: Kind) -> &Documents {
        match (self.options.document_masking, kind) {
            (DocumentMasking::Both, _) | (_, Kind::Full) => self.documents,
            (DocumentMasking::FullOnly, _) => &self.rows,
        }
    }

    pub(super) fn block_size(&self) -> usize {
        self.options.selection.budget.block_size()
    }

    fn kv_width(&self) -> usize {
        self.config.num_key_value_heads * self.config.head_dim
    }
}
