//! The KV cache, and attention and block selection over it: random sequences filled in chunks, all
//! of them in one call.

use ssa_kernels::kv_cache::{CachedSequences, KvCache, KvShape, SequenceId};
use ssa_kernels::ops::attention::cached::reference::{CachedSequence, forward, means};
use ssa_kernels::ops::attention::cached::{
    CachedKeys, PageBudget, PageOptions, append_kv, cached_attention_fwd, select_pages,
};
use ssa_kernels::ops::attention::selection::reference::{self, SelectionInputs};
use ssa_kernels::ops::attention::selection::{SelectionRule, SparseBudget};
use ssa_kernels::{Device, Documents, Tensor};

use crate::context::largest;
use crate::selection::shortfall;
use crate::{Context, Result};

/// How much less important, relatively, a selected page may be than one that it takes the place of.
const TOLERANCE: f64 = 1e-4;

/// Query heads, key/value heads, head size, page size, selected pages, tokens of each sequence.
const CASES: [([usize; 5], &[usize]); 7] = [
    ([16, 1, 64, 16, 4], &[700, 1, 33, 16]),
    ([32, 2, 64, 16, 16], &[300, 500]),
    ([6, 2, 80, 5, 3], &[64, 150, 4]),
    ([4, 4, 16, 1, 7], &[90, 3]),
    ([20, 1, 128, 64, 2], &[1000]),
    ([3, 1, 256, 8, 40], &[200, 19]),
    // More keys than parts.
    ([2, 1, 64, 4, 8], &[9000]),
];
/// Queries of the last call of each sequence: a step, and a chunk.
const LAST: [usize; 2] = [1, 5];

/// A cache that holds random sequences, of which the last tokens are queries.
struct Filled {
    cache: KvCache,
    ids: Vec<SequenceId>,
    /// The last call.
    call: CachedSequences,
    /// Keys and values `[tokens, H, D]` of each sequence, exactly.
    rows: Vec<[Vec<f64>; 2]>,
    q: Tensor,
    exact_q: Vec<f64>,
    sizes: [usize; 5],
    first_positions: Vec<usize>,
}

pub(crate) fn run_cache(context: &mut Context<'_>) -> Result<()> {
    for (sizes, lengths) in CASES {
        let filled = fill(context, sizes, lengths, LAST[1])?;
        let Filled { mut cache, ids, rows, .. } = filled;
        check_rows(context, "cached", &cache, &ids, &rows)?;
        let copies = ids.iter().map(|&id| cache.fork(id)).collect::<Result<Vec<_>>>()?;
        check_rows(context, "forked", &cache, &copies, &rows)?;
        // Rows that are forgotten and written again.
        let width = sizes[1] * sizes[2];
        for (&id, [keys, values]) in ids.iter().zip(&rows) {
            let tokens = keys.len() / width;
            cache.truncate(id, tokens / 2)?;
            let rest = [keys, values].map(|rows| rows[tokens / 2 * width..].to_vec());
            append(context, &mut cache, (&[id], sizes), &[rest])?;
        }
        check_rows(context, "written again", &cache, &ids, &rows)?;
    }
    Ok(())
}

pub(crate) fn run_attention(context: &mut Context<'_>) -> Result<()> {
    for (sizes, lengths) in CASES {
        for last in LAST {
            let filled = fill(context, sizes, lengths, last)?;
            for window in [1, 16, 50, 100_000] {
                attention(context, &filled, &format!("last {window}"), CachedKeys::Last(window))?;
            }
            attention(context, &filled, "all", CachedKeys::All)?;
            attention(context, &filled, "means", CachedKeys::Means)?;
            let counts = PageBudget::Counts(sizes[4]);
            let exact = PageOptions { budget: counts, rule: SelectionRule::Exact };
            selection(context, &filled, &exact)?;
            if sizes[3].is_power_of_two() && sizes[3] >= sizes[4].max(2) {
                let rule = SelectionRule::Reference;
                selection(context, &filled, &PageOptions { budget: counts, rule })?;
            }
            for mass in [0.3, 0.95] {
                let budget = PageBudget::Mass { mass, min: 2, max: sizes[4].max(2) };
                selection(context, &filled, &PageOptions { budget, ..exact })?;
            }
        }
    }
    Ok(())
}

/// Appends keys and values `[tokens, H, D]` of sequences, in both layers; those of the second are
/// the ones that are checked.
fn append(
    context: &mut Context<'_>,
    cache: &mut KvCache,
    (ids, [_, kv_heads, head_dim, ..]): (&[SequenceId], [usize; 5]),
    parts: &[[Vec<f64>; 2]],
) -> Result<CachedSequences> {
    let width = kv_heads * head_dim;
    let chunks: Vec<(SequenceId, usize)> = ids
        .iter()
        .zip(parts)
        .map(|(&id, [keys, _])| (id, keys.len() / width))
        .filter(|&(_, tokens)| tokens > 0)
        .collect();
    let call = cache.extend(&chunks)?;
    let tokens = call.sequences().total_tokens();
    let mut tensor = |part: usize| -> Result<Tensor> {
        let rows = parts.iter().flat_map(|rows| &rows[part]).map(|&value| value as f32).collect();
        Ok(context.tensor(rows, &[1, tokens, kv_heads, head_dim])?.0)
    };
    let [k, v]: [Tensor; 2] = [tensor(0)?, tensor(1)?];
    append_kv(cache, 0, &v, &k, &call)?;
    append_kv(cache, 1, &k, &v, &call)?;
    Ok(call)
}

/// The cache must hold the rows as they are, and their means.
fn check_rows(
    context: &mut Context<'_>,
    what: &str,
    cache: &KvCache,
    ids: &[SequenceId],
    rows: &[[Vec<f64>; 2]],
) -> Result<()> {
    let KvShape { kv_heads, head_dim, page_size, .. } = *cache.shape();
    for (&id, [keys, values]) in ids.iter().zip(rows) {
        let cached = cache.rows(1, id)?;
        context.compare_within(&format!("{what} keys"), &cached.keys.to_vec()?, keys, 0.0);
        context.compare_within(&format!("{what} values"), &cached.values.to_vec()?, values, 0.0);
        let exact = |rows: &[f64]| means(rows, kv_heads * head_dim, page_size);
        context.compare_f32(&format!("{what} key means"), &cached.key_means, &exact(keys)?)?;
        if let Some(value_means) = &cached.value_means {
            context.compare_f32(&format!("{what} value means"), value_means, &exact(values)?)?;
        }
    }
    Ok(())
}

impl Filled {
    /// The sequences of the call with their ranges of queries.
    fn sequences(&self) -> impl Iterator<Item = (CachedSequence<'_>, std::ops::Range<usize>)> {
        let [q_heads, kv_heads, head_dim, page_size, _] = self.sizes;
        let ranges = self.call.sequences().ranges();
        self.rows.iter().zip(&self.first_positions).zip(ranges).map(
            move |(([keys, values], &first_position), range)| {
                let width = q_heads * head_dim;
                let sequence = CachedSequence {
                    q: &self.exact_q[range.start * width..range.end * width],
                    first_position,
                    keys,
                    values,
                    q_heads,
                    kv_heads,
                    head_dim,
                    page_size,
                    softmax_scale: f64::from(self.softmax_scale()),
                };
                (sequence, range)
            },
        )
    }

    fn softmax_scale(&self) -> f32 {
        (self.sizes[2] as f32).powf(-0.5)
    }
}

/// Compares attention with its definition. On a GPU keys, values and probabilities are `bf16`,
/// which a plain computation rounds as well.
fn attention(
    context: &mut Context<'_>,
    filled: &Filled,
    what: &str,
    keys: CachedKeys<'_>,
) -> Result<()> {
    let Filled { cache, call, q, .. } = filled;
    let attend = || cached_attention_fwd(q, cache, 1, call, keys, filled.softmax_scale());
    let output = attend()?;
    let [mut out, mut lse, mut plain] = [const { Vec::new() }; 3];
    for (sequence, range) in filled.sequences() {
        let (exact_out, exact_lse) = forward(&sequence, keys, range.start)?;
        plain.extend(exact_out.iter().map(|&value| 1.02 * value));
        out.extend(exact_out);
        lse.extend(exact_lse);
    }
    context.compare(&format!("{what}: out"), &output.out, &out, &plain)?;
    let name = format!("{what}: lse");
    match (keys, context.device()) {
        // Means enter products in `bf16`: scores, none of which is above lse, move by 2^-9.
        (CachedKeys::Means, Device::Cuda(_)) => {
            let allowed = largest(&lse) * f64::from(half::bf16::EPSILON) / 4.0;
            context.compare_within(&name, &output.lse.to_vec()?, &lse, allowed);
        }
        _ => context.compare_f32(&name, &output.lse, &lse)?,
    }
    context.compare_bits(&format!("{what}: out"), &output.out, &attend()?.out)
}

/// Selects pages, checks them, and attends to them.
fn selection(context: &mut Context<'_>, filled: &Filled, options: &PageOptions) -> Result<()> {
    let Filled { cache, call, q, .. } = filled;
    let [q_heads, kv_heads, head_dim, page_size, _] = filled.sizes;
    let what = format!("{} {:?}", options.rule, options.budget);
    let pages = select_pages(q, cache, 1, call, options, filled.softmax_scale())?;
    let host = pages.to_host()?;
    let (mut worst, mut wrong_mass) = (0.0_f64, 0.0_f64);
    for (sequence, range) in filled.sequences() {
        let pooled = means(sequence.keys, kv_heads * head_dim, page_size)?;
        for query in 0..range.len() {
            let position = sequence.first_position + query;
            let width = q_heads * head_dim;
            // The definition numbers queries by position.
            let mut q = vec![0.0; (position + 1) * width];
            q[position * width..].copy_from_slice(&sequence.q[query * width..][..width]);
            let mut k_pooled = pooled.clone();
            k_pooled.resize((position / page_size + 1) * kv_heads * head_dim, 0.0);
            let inputs = SelectionInputs {
                q: &q,
                k_pooled: &k_pooled,
                q_heads,
                kv_heads,
                head_dim,
                softmax_scale: sequence.softmax_scale,
            };
            let documents = Documents::rows(1, position + 1)?;
            let importance = reference::importance(&inputs, &documents, page_size)?;
            for kv_head in 0..kv_heads {
                let importance = &importance[position * kv_heads + kv_head];
                let row = (range.start + query) * kv_heads + kv_head;
                let selected = host.selected(range.start + query, kv_head);
                let (lack, mass) = judge(importance, selected, options, &filled.sizes, position)?;
                worst = worst.max(lack);
                wrong_mass = wrong_mass.max((f64::from(host.kept_mass()[row]) - mass).abs());
            }
        }
    }
    context.outcome(&format!("{what}: importance that a selection lacks"), worst, TOLERANCE);
    context.outcome(&format!("{what}: kept mass"), wrong_mass, TOLERANCE);
    attention(context, filled, &what, CachedKeys::Pages(&pages))
}

/// How much less important a selection is than it could be, and the mass that it keeps.
fn judge(
    importance: &[f64],
    selected: &[i32],
    options: &PageOptions,
    &[q_heads, kv_heads, _, page_size, _]: &[usize; 5],
    position: usize,
) -> Result<(f64, f64)> {
    let group = (q_heads / kv_heads) as f64;
    let all: f64 = importance.iter().sum();
    let earlier = selected.iter().filter_map(|&page| importance.get(page as usize));
    let kept: f64 = earlier.sum();
    let complete = (position + 1) / page_size;
    let own = if complete > importance.len() { group - all } else { 0.0 };
    let mass = if complete == 0 { 1.0 } else { (kept + own) / group };
    let most = options.most_pages(page_size)?;
    let pages = match options.budget {
        PageBudget::Counts(_) => most,
        // As many as were selected, if that is a number that the mass allows.
        PageBudget::Mass { mass: wanted, min, max } => {
            let pages = selected.len();
            let least = min.min(importance.len() + 1);
            let last = selected.iter().filter_map(|&page| importance.get(page as usize));
            let last = last.copied().fold(f64::INFINITY, f64::min);
            let enough = mass + TOLERANCE >= f64::from(wanted) || complete == 0;
            let needed = mass - last / group < f64::from(wanted) + TOLERANCE;
            let full = pages == max.min(importance.len() + 1);
            if (pages > least && !needed) || !(enough || full) || pages < least {
                return Ok((f64::INFINITY, mass));
            }
            pages
        }
    };
    let selection = SparseBudget::new(page_size, pages)?.selection(options.rule);
    let best = reference::select(importance, &selection);
    Ok((shortfall(importance, &best, selected, &selection), mass))
}

/// Fills a cache: each sequence in two calls, the second of at most `last` tokens.
fn fill(
    context: &mut Context<'_>,
    sizes: [usize; 5],
    lengths: &[usize],
    last: usize,
) -> Result<Filled> {
    let [q_heads, kv_heads, head_dim, page_size, counts] = sizes;
    context.case(format!(
        "HQ {q_heads} H {kv_heads} D {head_dim} {page_size}x{counts}, tokens {lengths:?}, \
         last {last}"
    ));
    let shape = KvShape { layers: 2, kv_heads, head_dim, page_size, value_means: true };
    let mut cache =
        KvCache::new(context.device(), shape, 4 * lengths.iter().sum::<usize>() + 1024)?;
    let ids: Vec<SequenceId> = lengths.iter().map(|_| cache.add_sequence()).collect();
    let width = kv_heads * head_dim;
    let mut rows: Vec<[Vec<f64>; 2]> = Vec::new();
    for &tokens in lengths {
        let mut exact = || -> Result<Vec<f64>> { Ok(context.normal(&[tokens * width], 1.0)?.1) };
        rows.push([exact()?, exact()?]);
    }
    let lasts: Vec<usize> = lengths.iter().map(|&tokens| last.min(tokens)).collect();
    let parts = |begin: bool| -> Vec<[Vec<f64>; 2]> {
        let cut = rows.iter().zip(&lasts).map(|(rows, &last)| {
            rows.each_ref().map(|rows| {
                let border = rows.len() - last * width;
                if begin { rows[..border].to_vec() } else { rows[border..].to_vec() }
            })
        });
        cut.collect()
    };
    let first_positions = lengths.iter().zip(&lasts).map(|(tokens, last)| tokens - last).collect();
    append(context, &mut cache, (&ids, sizes), &parts(true))?;
    let call = append(context, &mut cache, (&ids, sizes), &parts(false))?;
    let queries: usize = lasts.iter().sum();
    let (q, exact_q) = context.normal(&[1, queries, q_heads, head_dim], 1.0)?;
    Ok(Filled { cache, ids, call, rows, q, exact_q, sizes, first_positions })
}
