//! Floating-point operations of a training step, for model FLOPs utilization (MFU).

use ssa_data::Batch;
use ssa_model::{
    AttendedKeys, AttentionMode, AttentionSizes, DocumentMasking, Method, ModelConfig,
};

use crate::TrainPlan;

/// One forward and two backward products, each a multiplication and an addition.
const PER_PRODUCT: f64 = 6.0;

/// Floating-point operations of a step by formula, independent of the kernels.
///
/// ```text
/// tokens * 6 * weights of all matrix products    (with the head, without the embedding)
/// pairs * 6 * 2 * query heads * head_dim * layers    (scores, and weighted values)
/// ```
///
/// Query-key pairs are counted per document, for each attention that the method computes in
/// training. Not counted: padding, recomputation, block selection and elementwise ops.
///
/// Accumulated in `f64`, which is exact up to 2^53 pairs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepFlops {
    per_token: f64,
    per_pair: f64,
    attentions: Vec<CountedAttention>,
}

/// An attention that the method computes in training.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CountedAttention {
    keys: AttendedKeys,
    /// Whether it sees whole rows instead of documents.
    whole_rows: bool,
}

impl StepFlops {
    pub(crate) fn new(plan: &TrainPlan) -> Self {
        let (model, attention) = (plan.model(), &plan.objective().attention);
        let sizes =
            AttentionSizes { budget: attention.selection.budget, ..model.attention_sizes() };
        let full_only = attention.document_masking == DocumentMasking::FullOnly;
        let attentions = attention.method.training_attentions();
        let counted = attentions.iter().map(|planned| CountedAttention {
            keys: planned.kind.keys(&sizes),
            whole_rows: full_only && planned.mode == AttentionMode::Sparse,
        });
        let width = (model.num_attention_heads * model.head_dim * model.num_hidden_layers) as f64;
        Self {
            per_token: PER_PRODUCT * multiplied_weights(model, attention.method),
            per_pair: PER_PRODUCT * 2.0 * width,
            attentions: counted.collect(),
        }
    }

    /// The operations for the rows of a step.
    pub(crate) fn of(&self, batches: &[Batch]) -> f64 {
        batches.iter().map(|batch| self.of_batch(batch)).sum()
    }

    fn of_batch(&self, batch: &Batch) -> f64 {
        let documents = batch.cu_seqlens.windows(2);
        // Padding is a separate document.
        let documents = documents.filter(|border| batch.valid[border[0]]);
        let documents: Vec<u64> = documents.map(|border| (border[1] - border[0]) as u64).collect();
        let rows: Vec<u64> = batch.valid.chunks(batch.tokens.max(1)).map(valid_tokens).collect();
        let pairs = |attention: &CountedAttention| {
            let lengths = if attention.whole_rows { &rows } else { &documents };
            lengths.iter().map(|&length| attention.keys.pairs(length) as f64).sum::<f64>()
        };
        let pairs: f64 = self.attentions.iter().map(pairs).sum();
        batch.valid_tokens() as f64 * self.per_token + pairs * self.per_pair
    }
}

fn valid_tokens(row: &[bool]) -> u64 {
    row.iter().filter(|&&valid| valid).count() as u64
}

/// Number of weights that multiply each token.
fn multiplied_weights(model: &ModelConfig, method: Method) -> f64 {
    let queries = model.num_attention_heads * model.head_dim;
    let keys = model.num_key_value_heads * model.head_dim;
    let gates = model.num_attention_heads * method.training_gates().len();
    // q_proj and o_proj; k_proj and v_proj; gates; the three feed-forward matrices.
    let layer = model.hidden_size * (2 * queries + 2 * keys + gates + 3 * model.intermediate_size);
    (layer * model.num_hidden_layers + model.vocab_size * model.hidden_size) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::tests::plan;

    fn batch(documents: &[usize], padding: usize) -> Batch {
        let tokens = documents.iter().sum::<usize>() + padding;
        let mut cu_seqlens = vec![0];
        documents.iter().chain((padding > 0).then_some(&padding)).for_each(|length| {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + length);
        });
        let valid = (0..tokens).map(|place| place < tokens - padding).collect();
        Batch { ids: vec![0; tokens], labels: vec![0; tokens], cu_seqlens, valid, batch: 1, tokens }
    }

    #[test]
    fn a_step_is_counted_by_method_document_and_row() {
        let count = |method: &str, more: &[&str], batch: &Batch| {
            let method = format!("objective.method={method}");
            StepFlops::new(&plan(&[&[method.as_str()], more].concat()))
                .of(std::slice::from_ref(batch))
        };
        let plan = plan(&[]);
        let model = plan.model();
        let width = (model.num_attention_heads * model.head_dim * model.num_hidden_layers) as f64;
        let (long, cut, padded) = (batch(&[32], 0), batch(&[20, 12], 0), batch(&[20, 12], 9));
        let pairs = 32.0 * 33.0 / 2.0 - (20.0 * 21.0 + 12.0 * 13.0) / 2.0;
        let saved = count("full", &[], &long) - count("full", &[], &cut);
        assert_eq!(saved, pairs * 12.0 * width);
        assert_eq!(count("full", &[], &cut), count("full", &[], &padded));
        // Both attentions share one set of matrices.
        let matrices = 32.0 * PER_PRODUCT * multiplied_weights(model, Method::SSA);
        let both = count("full", &[], &cut) + count("moba", &[], &cut);
        assert_eq!(count("ssa", &[], &cut), both - matrices);
        let rows = ["objective.document_masking=full_only"];
        assert_eq!(count("moba", &rows, &padded), count("moba", &[], &long));
        assert_eq!(count("full", &rows, &cut), count("full", &[], &cut));
        assert!(count("nsa", &[], &cut) > count("moba", &[], &cut));
    }
}
