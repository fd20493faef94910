//! The work of a training step, for a share of what a device could do at best (MFU).

use ssa_data::Batch;
use ssa_model::{DocumentMasking, Method, ModelConfig};

use crate::TrainPlan;

/// Forward once, backward twice, each multiplication with its addition.
const PER_PRODUCT: f64 = 6.0;

/// Floating-point operations that a step needs by its formulas, whatever the kernels compute.
///
/// ```text
/// tokens * 6 * weights of the matrices a token is multiplied with        (the head is one, the embedding is none)
/// pairs * 6 * 2 * query heads * head_dim * layers                        (scores, and values by their weights)
/// ```
///
/// The pairs of a query with the keys it attends to are counted document by document, for each
/// attention that the method computes: both for ssa, all three for nsa. What is not counted:
/// padding, a forward that is run again to save memory, the choice of blocks, and everything
/// elementwise.
///
/// Accumulated in `f64`, which is exact up to 2^53 pairs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepFlops {
    per_token: f64,
    per_pair: f64,
    keys: Vec<Keys>,
    /// Whether attention other than full sees whole rows instead of documents.
    rows: bool,
}

/// Which keys a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// All up to itself.
    All,
    /// Those of at most `counts` blocks, its own up to itself and whole ones before.
    Selected { size: u64, counts: u64 },
    /// One for each complete block, its own if it is the last of it.
    Complete { size: u64 },
    /// The last ones, itself included.
    Last(u64),
}

impl StepFlops {
    pub(crate) fn new(plan: &TrainPlan) -> Self {
        let (model, attention) = (plan.model(), &plan.objective().attention);
        let [size, counts] = [attention.selection.block_size, attention.selection.block_counts];
        let selected = Keys::Selected { size: size as u64, counts: counts as u64 };
        let keys = match attention.method {
            Method::Full => vec![Keys::All],
            Method::Moba => vec![selected],
            Method::Ssa => vec![Keys::All, selected],
            Method::Nsa => {
                let window = Keys::Last(model.window_size as u64);
                vec![Keys::Complete { size: size as u64 }, selected, window]
            }
        };
        let width = (model.num_attention_heads * model.head_dim * model.num_hidden_layers) as f64;
        Self {
            per_token: PER_PRODUCT * multiplied_weights(model, attention.method),
            per_pair: PER_PRODUCT * 2.0 * width,
            keys,
            rows: attention.document_masking == DocumentMasking::FullOnly,
        }
    }

    /// The operations for the rows of a step.
    pub(crate) fn of(&self, batches: &[Batch]) -> f64 {
        batches.iter().map(|batch| self.of_batch(batch)).sum()
    }

    fn of_batch(&self, batch: &Batch) -> f64 {
        let documents = batch.cu_seqlens.windows(2);
        // Padding is a document of its own.
        let documents = documents.filter(|border| batch.valid[border[0]]);
        let documents: Vec<u64> = documents.map(|border| (border[1] - border[0]) as u64).collect();
        let rows: Vec<u64> = batch.valid.chunks(batch.tokens.max(1)).map(valid_tokens).collect();
        let pairs = |keys: &Keys| {
            let lengths = if self.rows && *keys != Keys::All { &rows } else { &documents };
            lengths.iter().map(|&length| keys.pairs(length) as f64).sum::<f64>()
        };
        let pairs: f64 = self.keys.iter().map(pairs).sum();
        batch.valid_tokens() as f64 * self.per_token + pairs * self.per_pair
    }
}

impl Keys {
    /// Pairs of query and key in a document of so many tokens.
    fn pairs(self, tokens: u64) -> u64 {
        match self {
            Self::All => up_to(tokens),
            Self::Last(window) => {
                let short = tokens.min(window);
                up_to(short) + (tokens - short) * window
            }
            Self::Complete { size } => {
                let (blocks, rest) = (tokens / size, tokens % size);
                size * up_to_before(blocks) + blocks + rest * blocks
            }
            Self::Selected { size, counts } => {
                let (blocks, rest) = (tokens / size, tokens % size);
                let others = counts.saturating_sub(1);
                // A query of block b attends to min(b, others) whole blocks besides its own.
                let near = blocks.min(others);
                let whole = up_to_before(near) + (blocks - near) * others;
                let own = blocks * up_to(size) + up_to(rest);
                size * size * whole + rest * size * near + own
            }
        }
    }
}

/// `1 + 2 + ... + n`.
fn up_to(n: u64) -> u64 {
    n * (n + 1) / 2
}

/// `0 + 1 + ... + (n - 1)`.
fn up_to_before(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

fn valid_tokens(row: &[bool]) -> u64 {
    row.iter().filter(|&&valid| valid).count() as u64
}

/// Weights of all matrices that a token is multiplied with.
fn multiplied_weights(model: &ModelConfig, method: Method) -> f64 {
    let queries = model.num_attention_heads * model.head_dim;
    let keys = model.num_key_value_heads * model.head_dim;
    let gates = model.num_attention_heads * if method == Method::Nsa { 3 } else { 1 };
    // Queries and output; keys and values; the gates; the feed-forward layer's three.
    let layer = model.hidden_size * (2 * queries + 2 * keys + gates + 3 * model.intermediate_size);
    (layer * model.num_hidden_layers + model.vocab_size * model.hidden_size) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::tests::plan;

    /// The pairs of one query at position `t`, by the definition.
    fn keys_of(keys: Keys, t: u64) -> u64 {
        match keys {
            Keys::All => t + 1,
            Keys::Last(window) => (t + 1).min(window),
            Keys::Complete { size } => (t + 1) / size,
            Keys::Selected { size, counts } => (t / size).min(counts - 1) * size + t % size + 1,
        }
    }

    #[test]
    fn pairs_are_counted_as_if_one_by_one() {
        let selected = |size, counts| Keys::Selected { size, counts };
        let kinds = [
            Keys::All,
            Keys::Last(1),
            Keys::Last(7),
            Keys::Complete { size: 4 },
            selected(4, 1),
            selected(4, 3),
            selected(5, 64),
        ];
        for keys in kinds {
            for tokens in 0..70 {
                let expected: u64 = (0..tokens).map(|t| keys_of(keys, t)).sum();
                assert_eq!(keys.pairs(tokens), expected, "{keys:?} of {tokens}");
            }
        }
    }

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
        // Both attentions on top of one set of matrices.
        let matrices = 32.0 * PER_PRODUCT * multiplied_weights(model, Method::Ssa);
        let both = count("full", &[], &cut) + count("moba", &[], &cut);
        assert_eq!(count("ssa", &[], &cut), both - matrices);
        let rows = ["objective.document_masking=full_only"];
        assert_eq!(count("moba", &rows, &padded), count("moba", &[], &long));
        assert_eq!(count("full", &rows, &cut), count("full", &[], &cut));
        assert!(count("nsa", &[], &cut) > count("moba", &[], &cut));
    }
}
