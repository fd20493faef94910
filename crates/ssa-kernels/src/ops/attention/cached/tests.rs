use ssa_testkit::{Random, Tolerance, assert_close};

use super::reference::{CachedSequence, means};
use super::*;
use crate::Documents;
use crate::kv_cache::{KvShape, SequenceId};
use crate::ops::attention::selection::{
    SelectionRule, SparseBudget, reference as selection_reference,
};
use crate::ops::testing::{assert_refused, tensor, to_f64, values, with_threads, zeros};

/// H, G, D, page size, tokens.
const SHAPES: [[usize; 5]; 6] = [
    [1, 1, 2, 1, 9],
    [2, 3, 8, 4, 67],
    [3, 1, 20, 5, 41],
    [1, 4, 64, 16, 700],
    [2, 2, 6, 40, 130],
    [1, 2, 16, 1000, 60],
];

/// The keys, values and queries of a whole sequence, and how it is computed.
struct Text {
    shape: [usize; 5],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: f32,
}

/// What a call computes.
#[derive(Clone, Copy, Debug)]
enum Attend {
    All,
    Last(usize),
    Means,
    Pages(PageOptions),
}

fn counts(counts: usize) -> PageOptions {
    PageOptions { budget: PageBudget::Counts(counts), rule: SelectionRule::Exact }
}

fn mass(mass: f32, min: usize, max: usize) -> PageOptions {
    PageOptions { budget: PageBudget::Mass { mass, min, max }, rule: SelectionRule::Exact }
}

fn attends() -> Vec<Attend> {
    let mut attends = vec![Attend::All, Attend::Last(1), Attend::Last(7), Attend::Means];
    attends.extend([1, 2, 5, 1000].map(|pages| Attend::Pages(counts(pages))));
    attends.extend(
        [(0.5, 1, 4), (0.9, 2, 9), (1.0, 1, 1000)]
            .map(|(part, min, max)| Attend::Pages(mass(part, min, max))),
    );
    attends
}

impl Text {
    fn new(shape: [usize; 5], seed: u64) -> Self {
        let [heads, group, dim, _, tokens] = shape;
        let mut random = Random::new(seed);
        Self {
            shape,
            q: tensor(&mut random, [1, tokens, heads * group, dim]),
            k: tensor(&mut random, [1, tokens, heads, dim]),
            v: tensor(&mut random, [1, tokens, heads, dim]),
            scale: 1.5 / (dim as f32).sqrt(),
        }
    }

    fn cache(&self, capacity: usize) -> KvCache {
        let [kv_heads, _, head_dim, page_size, _] = self.shape;
        let shape = KvShape { layers: 2, kv_heads, head_dim, page_size, value_means: true };
        KvCache::new(&Device::Cpu, shape, capacity).unwrap()
    }

    fn part(x: &Tensor, tokens: std::ops::Range<usize>) -> Vec<f32> {
        let width = x.len() / x.shape()[1];
        values(x)[tokens.start * width..tokens.end * width].to_vec()
    }

    /// Output, lse and kept masses of the queries of a text in a cache, in chunks.
    fn run(&self, attend: Attend, chunks: &[usize]) -> [Vec<f32>; 3] {
        let mut cache = self.cache(self.shape[4]);
        let id = cache.add_sequence();
        let mut results = [(); 3].map(|()| Vec::new());
        for &tokens in chunks {
            let parts = call(&mut cache, &[(id, self, tokens)], attend);
            results.iter_mut().zip(parts).for_each(|(all, part)| all.extend(part));
        }
        results
    }
}

/// One call for some texts with the same sizes.
fn call(
    cache: &mut KvCache,
    chunks: &[(SequenceId, &Text, usize)],
    attend: Attend,
) -> [Vec<f32>; 3] {
    let [heads, group, dim, ..] = chunks[0].1.shape;
    let starts: Vec<usize> = chunks.iter().map(|(id, ..)| cache.tokens(*id).unwrap()).collect();
    let lens: Vec<_> = chunks.iter().map(|&(id, _, tokens)| (id, tokens)).collect();
    let sequences = cache.extend(&lens).unwrap();
    let gather = |pick: fn(&Text) -> &Tensor, heads: usize| {
        let parts = chunks.iter().zip(&starts);
        let parts = parts.map(|((_, text, n), &start)| Text::part(pick(text), start..start + n));
        let data = parts.collect::<Vec<_>>().concat();
        let tokens = data.len() / heads / dim;
        Tensor::from_vec(data, [1, tokens, heads, dim]).unwrap()
    };
    let q = gather(|text| &text.q, heads * group);
    let (k, v) = (gather(|text| &text.k, heads), gather(|text| &text.v, heads));
    append_kv(cache, 1, &k, &v, &sequences).unwrap();
    let scale = chunks[0].1.scale;
    let selection = match attend {
        Attend::Pages(options) => {
            Some(select_pages(&q, cache, 1, &sequences, &options, scale).unwrap())
        }
        _ => None,
    };
    let keys = match (attend, &selection) {
        (Attend::Last(window), _) => CachedKeys::Last(window),
        (Attend::Means, _) => CachedKeys::Means,
        (_, Some(selection)) => CachedKeys::Pages(selection),
        _ => CachedKeys::All,
    };
    let output = cached_attention_fwd(&q, cache, 1, &sequences, keys, scale).unwrap();
    let kept =
        selection.map_or(Vec::new(), |selection| selection.to_host().unwrap().kept_mass().to_vec());
    [output.out.to_vec().unwrap(), output.lse.to_vec().unwrap(), kept]
}

/// Cuts a text at random.
fn cuts(random: &mut Random, tokens: usize) -> Vec<usize> {
    random.cu_seqlens(tokens, 40).windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn chunks_equal_the_definition() {
    let mut random = Random::new(1);
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let [heads, group, dim, page_size, tokens] = shape;
        let text = Text::new(shape, seed as u64);
        let [q, k, v] = [&text.q, &text.k, &text.v].map(to_f64);
        let sequence = CachedSequence {
            q: &q,
            first_position: 0,
            keys: &k,
            values: &v,
            q_heads: heads * group,
            kv_heads: heads,
            head_dim: dim,
            page_size,
            softmax_scale: f64::from(text.scale),
        };
        for attend in [Attend::All, Attend::Last(1), Attend::Last(7), Attend::Means] {
            let keys = match attend {
                Attend::Last(window) => CachedKeys::Last(window),
                Attend::Means => CachedKeys::Means,
                _ => CachedKeys::All,
            };
            let (out, lse) = reference::forward(&sequence, keys, 0).unwrap();
            let [actual, actual_lse, _] = text.run(attend, &cuts(&mut random, tokens));
            assert_close("out", &actual, &out, Tolerance::F32);
            assert_close("lse", &actual_lse, &lse, Tolerance::F32);
        }
    }
}

#[test]
fn selections_equal_the_definition() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let [heads, group, dim, page_size, tokens] = shape;
        let text = Text::new(shape, seed as u64);
        let [q, k, v] = [&text.q, &text.k, &text.v].map(to_f64);
        let documents = Documents::rows(1, tokens).unwrap();
        // The definition takes blocks that are incomplete, too, but does not look at them.
        let mut k_pooled = means(&k, heads * dim, page_size).unwrap();
        k_pooled.resize(documents.blocks(page_size) * heads * dim, 0.0);
        let inputs = selection_reference::SelectionInputs {
            q: &q,
            k_pooled: &k_pooled,
            q_heads: heads * group,
            kv_heads: heads,
            head_dim: dim,
            softmax_scale: f64::from(text.scale),
        };
        let importance = selection_reference::importance(&inputs, &documents, page_size).unwrap();
        let mut rules = vec![SelectionRule::Exact];
        if page_size == 4 || page_size == 16 {
            rules.push(SelectionRule::Reference);
        }
        for (rule, pages) in rules.into_iter().flat_map(|rule| [(rule, 1), (rule, 4)]) {
            let options = PageOptions { budget: PageBudget::Counts(pages), rule };
            let mut cache = text.cache(tokens);
            let id = cache.add_sequence();
            let sequences = cache.extend(&[(id, tokens)]).unwrap();
            append_kv(&mut cache, 0, &text.k, &text.v, &sequences).unwrap();
            let select = |options| {
                select_pages(&text.q, &cache, 0, &sequences, options, text.scale).unwrap()
            };
            let selection = select(&options);
            let host = selection.to_host().unwrap();
            let blocks = SparseBudget::new(page_size, pages).unwrap().selection(rule);
            for (row, importance) in importance.iter().enumerate() {
                let selected = host.selected(row / heads, row % heads);
                let expected = selection_reference::select(importance, &blocks);
                assert_eq!(selected, expected, "{shape:?} {rule} {pages}: row {row}");
                let dropped = importance.iter().zip(0..).filter(|(_, it)| !selected.contains(it));
                let dropped: f64 = dropped.map(|(importance, _)| importance).sum();
                let kept = f64::from(host.kept_mass()[row]);
                assert!((kept - (1.0 - dropped / group as f64)).abs() < 1e-5, "{kept}");
            }
            check_attention(&text, &cache, &sequences, &selection, [&q, &k, &v]);
        }
    }
}

fn check_attention(
    text: &Text,
    cache: &KvCache,
    sequences: &CachedSequences,
    selection: &PageIndices,
    [q, keys, values_of_keys]: [&[f64]; 3],
) {
    let [heads, group, dim, page_size, _] = text.shape;
    let sequence = CachedSequence {
        q,
        first_position: 0,
        keys,
        values: values_of_keys,
        q_heads: heads * group,
        kv_heads: heads,
        head_dim: dim,
        page_size,
        softmax_scale: f64::from(text.scale),
    };
    let keys = CachedKeys::Pages(selection);
    let (out, _) = reference::forward(&sequence, keys, 0).unwrap();
    let actual = cached_attention_fwd(&text.q, cache, 0, sequences, keys, text.scale).unwrap();
    assert_close("out", values(&actual.out), &out, Tolerance::F32);
}

#[test]
fn a_budget_by_mass_takes_the_fewest_pages_that_keep_it() {
    let text = Text::new([2, 3, 8, 4, 67], 8);
    let mut cache = text.cache(67);
    let id = cache.add_sequence();
    let sequences = cache.extend(&[(id, 67)]).unwrap();
    append_kv(&mut cache, 0, &text.k, &text.v, &sequences).unwrap();
    let select = |options: PageOptions| {
        let pages = select_pages(&text.q, &cache, 0, &sequences, &options, text.scale).unwrap();
        pages.to_host().unwrap()
    };
    let by_mass = select(mass(0.6, 2, 9));
    let by_counts: Vec<_> = (1..=9).map(|pages| select(counts(pages))).collect();
    let mut numbers = std::collections::BTreeSet::new();
    for row in 0..67 * 2 {
        let pages = by_mass.selected(row / 2, row % 2);
        numbers.insert(pages.len());
        let available = row / 2 / 4 + 1;
        // The same pages as that many by number, and one less would not do.
        assert_eq!(pages, by_counts[pages.len() - 1].selected(row / 2, row % 2));
        let kept = |pages: usize| by_counts[pages - 1].kept_mass()[row];
        assert!(kept(pages.len()) >= 0.6 - 1e-6 || pages.len() == available.min(9), "row {row}");
        assert!(pages.len() <= 2 || kept(pages.len() - 1) < 0.6 + 1e-6, "row {row}");
        assert!(pages.len() >= available.min(2), "row {row}");
    }
    assert!(numbers.len() > 4, "{numbers:?}");
}

#[test]
fn chunks_batches_order_and_threads_change_no_bit() {
    let mut random = Random::new(2);
    for shape in SHAPES {
        let tokens = shape[4];
        let texts = [Text::new(shape, 10), Text::new(shape, 11), Text::new(shape, 12)];
        for attend in attends() {
            let whole = texts.each_ref().map(|text| text.run(attend, &[tokens]));
            let steps = texts[0].run(attend, &vec![1; tokens]);
            assert_eq!(bits(&steps), bits(&whole[0]), "{shape:?} {attend:?}");
            // Three sequences in one cache, each in its own chunks, in changing order.
            let threads = 1 + random.below(4, 1)[0] as usize;
            let parts = with_threads(threads, || together(&texts, attend, &mut random));
            for (parts, whole) in parts.iter().zip(&whole) {
                assert_eq!(bits(parts), bits(whole), "{shape:?} {attend:?}");
            }
        }
    }
}

fn bits(results: &[Vec<f32>; 3]) -> [Vec<u32>; 3] {
    results.each_ref().map(|values| values.iter().map(|value| value.to_bits()).collect())
}

/// Runs three texts in one cache, in random chunks.
fn together(texts: &[Text; 3], attend: Attend, random: &mut Random) -> [[Vec<f32>; 3]; 3] {
    let [heads, group, dim, page_size, tokens] = texts[0].shape;
    let widths = [heads * group * dim, heads * group, heads];
    let mut cache = texts[0].cache(3 * tokens.next_multiple_of(page_size));
    let ids = [(); 3].map(|()| cache.add_sequence());
    let mut results = [(); 3].map(|()| [(); 3].map(|()| Vec::new()));
    while let Some(first) = (0..3).find(|&i| cache.tokens(ids[i]).unwrap() < tokens) {
        let mut order: Vec<usize> = (first..3).collect();
        if random.below(2, 1)[0] == 1 {
            order.reverse();
        }
        let mut chunks = Vec::new();
        for &index in &order {
            let left = tokens - cache.tokens(ids[index]).unwrap();
            let len = (random.below(30, 1)[0] as usize).min(left);
            if len > 0 {
                chunks.push((index, len));
            }
        }
        let Some(_) = chunks.first() else { continue };
        let texts: Vec<_> =
            chunks.iter().map(|&(index, len)| (ids[index], &texts[index], len)).collect();
        let parts = call(&mut cache, &texts, attend);
        for (kind, part) in parts.iter().enumerate() {
            let mut rest = part.as_slice();
            for &(index, len) in &chunks {
                let (own, after) = rest.split_at((len * widths[kind]).min(rest.len()));
                results[index][kind].extend_from_slice(own);
                rest = after;
            }
        }
    }
    results
}

#[test]
fn enough_pages_equal_full_attention() {
    let text = Text::new([2, 3, 8, 4, 67], 3);
    let [full, ..] = text.run(Attend::All, &[67]);
    for attend in [Attend::Last(67), Attend::Pages(counts(17)), Attend::Pages(mass(1.0, 17, 17))] {
        let [out, ..] = text.run(attend, &[50, 17]);
        assert_eq!(out, full, "{attend:?}");
    }
}

#[test]
fn wrong_calls_are_refused() {
    let text = Text::new([2, 1, 4, 4, 9], 4);
    let mut cache = text.cache(40);
    let id = cache.add_sequence();
    let sequences = cache.extend(&[(id, 9)]).unwrap();
    append_kv(&mut cache, 0, &text.k, &text.v, &sequences).unwrap();
    let attend = |cache: &KvCache, layer, sequences: &CachedSequences, keys| {
        cached_attention_fwd(&text.q, cache, layer, sequences, keys, 1.0)
    };
    assert_refused(attend(&cache, 2, &sequences, CachedKeys::All), "layer");
    assert_refused(attend(&cache, 0, &sequences, CachedKeys::Last(0)), "keys");
    for options in [
        counts(0),
        mass(0.0, 1, 2),
        mass(1.1, 1, 2),
        mass(f32::NAN, 1, 2),
        mass(0.5, 3, 2),
        mass(0.5, 0, 2),
    ] {
        let selected = select_pages(&text.q, &cache, 0, &sequences, &options, 1.0);
        assert_refused(selected, "options.budget");
    }
    let reference = PageOptions { rule: SelectionRule::Reference, ..mass(0.5, 1, 2) };
    let selected = select_pages(&text.q, &cache, 0, &sequences, &reference, 1.0);
    assert_refused(selected, "options.budget");
    let reference = PageOptions { rule: SelectionRule::Reference, ..counts(5) };
    let selected = select_pages(&text.q, &cache, 0, &sequences, &reference, 1.0);
    assert_refused(selected, "block_counts");

    let other = cache.add_sequence();
    let others = cache.extend(&[(other, 5), (id, 4)]).unwrap();
    let selection = select_pages(&text.q, &cache, 0, &others, &counts(2), 1.0).unwrap();
    // The sequence has grown since.
    assert_refused(attend(&cache, 0, &sequences, CachedKeys::All), "sequences");
    let shape = KvShape { value_means: false, ..*cache.shape() };
    let mut cache = KvCache::new(&Device::Cpu, shape, 40).unwrap();
    let id = cache.add_sequence();
    let sequences = cache.extend(&[(id, 9)]).unwrap();
    assert_refused(attend(&cache, 0, &sequences, CachedKeys::Means), "keys");
    assert_refused(attend(&cache, 0, &sequences, CachedKeys::Pages(&selection)), "keys");
    let k = zeros([1, 9, 2, 4]);
    assert_refused(append_kv(&mut cache, 2, &k, &k, &sequences), "layer");
}
