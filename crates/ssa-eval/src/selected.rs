//! The blocks that sparse attention would select in a layer that is being watched.

use ssa_kernels::ops::attention::pooling::mean_pool_f32_fwd;
use ssa_kernels::ops::attention::selection::{BlockIndices, SelectionOptions, select_blocks};
use ssa_model::{LayerAttention, ModelError};

/// Pools the layer's keys and selects by its queries, whatever attention the model itself runs.
pub(crate) fn select(
    layer: &LayerAttention<'_>,
    selection: &SelectionOptions,
) -> Result<BlockIndices, ModelError> {
    let k_pooled = mean_pool_f32_fwd(layer.k, layer.documents, selection.budget.block_size())?;
    Ok(select_blocks(layer.q, &k_pooled, layer.documents, selection, layer.softmax_scale)?)
}
