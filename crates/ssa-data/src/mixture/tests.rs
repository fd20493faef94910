use proptest::prelude::*;

use super::*;
use crate::{Batch, Loader, PackOptions, Packing, Remainder, pack};

/// `count` rows of 4 tokens; the first id of a row is `start` plus its number.
fn rows(start: u32, count: u32) -> PackedRows {
    let options = PackOptions {
        sequence_length: 4,
        packing: Packing::Greedy,
        seed: 0,
        remainder: Remainder::Drop,
    };
    let documents: Vec<Vec<u32>> = (0..count).map(|row| vec![start + row, 1, 2]).collect();
    pack(&documents, 0, &options).unwrap()
}

fn mixture(parts: &[(u32, f64)]) -> Mixture {
    let part = |(corpus, &(count, weight)): (usize, &(u32, f64))| {
        (rows(1000 * (corpus as u32 + 1), count), weight)
    };
    Mixture::new(parts.iter().enumerate().map(part).collect()).unwrap()
}

fn names(mixture: &Mixture, seed: u64, count: u64) -> Vec<u32> {
    (0..count).map(|index| mixture.row(seed, index).unwrap().ids()[0]).collect()
}

proptest! {
    #[test]
    fn every_corpus_gives_its_share_at_any_time(
        weights in prop::collection::vec(0.01..100.0, 1..6),
        start in prop_oneof![Just(0_u64), 0..u64::MAX / 2],
    ) {
        let mixture = mixture(&weights.iter().map(|&weight| (3, weight)).collect::<Vec<_>>());
        let total: f64 = weights.iter().sum();
        for (share, weight) in mixture.shares().zip(&weights) {
            prop_assert!((share - weight / total).abs() < 1e-12);
        }
        let mut counts = mixture.counts(start);
        prop_assert_eq!(counts.iter().sum::<u64>(), start);
        for index in start..start + 300 {
            // Every row is the next one of its corpus.
            let position = mixture.position(index);
            prop_assert_eq!(position.drawn, counts[position.corpus]);
            counts[position.corpus] += 1;
            prop_assert_eq!(&mixture.counts(index + 1), &counts);
        }
        for (share, count) in mixture.shares().zip(mixture.counts(100_000)) {
            let missing = (share * 100_000.0 - count as f64).abs();
            prop_assert!(missing < weights.len() as f64, "{missing} rows");
        }
    }
}

#[test]
fn proportions_stay_exact_for_huge_indices() {
    let counts = mixture(&[(2, 3.0), (2, 1.0)]).counts(4 << 40);
    assert_eq!(counts, [3 << 40, 1 << 40]);
    let thirds = mixture(&[(2, 1.0), (2, 1.0), (2, 1.0)]).counts(3 << 40);
    assert!(thirds.iter().all(|&count| count.abs_diff(1 << 40) <= 1), "{thirds:?}");
}

#[test]
fn equal_weights_take_turns() {
    let corpora: Vec<u32> =
        names(&mixture(&[(9, 1.0), (9, 1.0)]), 0, 8).iter().map(|name| name / 1000).collect();
    assert!(corpora.windows(2).all(|pair| pair[0] != pair[1]), "{corpora:?}");
}

#[test]
fn every_corpus_has_its_own_epochs() {
    let mixture = mixture(&[(4, 2.0), (5, 1.0)]);
    // 30 rows: 20 of the first corpus, five times all of it; 10 of the second, twice.
    assert_eq!(mixture.epochs(30), [5.0, 2.0]);
    let drawn = names(&mixture, 7, 30);
    for (corpus, count) in [(1, 4), (2, 5)] {
        let of_corpus: Vec<u32> =
            drawn.iter().copied().filter(|name| name / 1000 == corpus).collect();
        for epoch in of_corpus.chunks(count as usize) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert!(epoch.into_iter().eq(1000 * corpus..1000 * corpus + count));
        }
    }
    assert_ne!(drawn, names(&mixture, 8, 30), "the seed determines the order");
}

#[test]
fn weights_may_be_in_any_unit() {
    let drawn = |scale: f64| names(&mixture(&[(4, 0.7 * scale), (5, 0.3 * scale)]), 7, 100);
    assert_eq!(drawn(1.0), drawn(1024.0));
    assert_eq!(drawn(1.0), drawn(2_f64.powi(1020)), "no overflow");
}

#[test]
fn one_corpus_is_a_mixture_too() {
    let single = Mixture::from(rows(1000, 7));
    assert_eq!(names(&single, 3, 20), names(&mixture(&[(7, 5.0)]), 3, 20));
    assert_eq!((single.rows(), single.utilization(), single.sequence_length()), (7, 1.0, 4));
    assert_eq!(single.corpora().len(), 1);
}

#[test]
fn a_loader_of_a_mixture_resumes_anywhere() {
    let loader = || Loader::new(mixture(&[(4, 0.6), (5, 0.3), (2, 0.1)]), 4, 1).unwrap();
    let uninterrupted: Vec<Batch> = (0..30).map(|index| loader().batch(index).unwrap()).collect();
    let resumed = loader();
    for index in [29, 3, 17, 0] {
        assert_eq!(resumed.batch(index as u64).unwrap(), uninterrupted[index]);
    }
}

#[test]
fn invalid_mixtures_are_refused_with_the_reason() {
    let message = |parts| Mixture::new(parts).unwrap_err().to_string();
    assert_eq!(
        message(vec![]),
        "the corpora cannot be mixed: there is no corpus\nhint: name at least one"
    );
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let message = message(vec![(rows(1, 1), 1.0), (rows(1, 1), weight)]);
        assert!(message.contains("weights are positive numbers"), "{message}");
    }
    let options = PackOptions {
        sequence_length: 3,
        packing: Packing::Concat,
        seed: 0,
        remainder: Remainder::Drop,
    };
    let shorter = pack(&[vec![1, 2, 3, 4]], 0, &options).unwrap();
    assert!(message(vec![(rows(1, 1), 1.0), (shorter, 1.0)]).ends_with("rows have 4 and 3 tokens"));
}
