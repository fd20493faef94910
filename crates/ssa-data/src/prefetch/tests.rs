use std::time::{Duration, Instant};

use super::*;
use crate::shard::{Corpus, ShardWriter, TokenType};
use crate::{PackOptions, Packing, Remainder, TokenSource, pack, pack_documents};

fn loader() -> Loader {
    let options = PackOptions {
        sequence_length: 8,
        packing: Packing::Concat,
        seed: 0,
        remainder: Remainder::Drop,
    };
    let documents: Vec<Vec<u32>> = (1..60).map(|length| (1..=length).collect()).collect();
    Loader::new(pack(&documents, 0, &options).unwrap(), 3, 5).unwrap()
}

#[test]
fn batches_are_those_of_the_loader_in_any_order() {
    let mut prefetch = Prefetch::new(loader(), 2).unwrap();
    // In order, repeated, back, far ahead, onward, to the very end and wrapping around.
    for index in [0, 1, 2, 3, 3, 1, 2, 900, 901, 902, u64::MAX, 0, 1] {
        assert_eq!(prefetch.batch(index).unwrap(), loader().batch(index).unwrap(), "{index}");
    }
    assert_eq!(prefetch.loader().batch_size(), 3);
}

#[test]
fn batches_are_prefetched_up_to_the_depth() {
    let mut prefetch = Prefetch::new(loader(), 4).unwrap();
    prefetch.batch(0).unwrap();
    let waiting = |prefetch: &Prefetch| {
        prefetch.ahead.as_ref().unwrap().batches.as_ref().unwrap().try_iter().count()
    };
    let start = Instant::now();
    let mut found = 0;
    while found < 5 && start.elapsed() < Duration::from_secs(20) {
        found += waiting(&prefetch);
        thread::yield_now();
    }
    assert!(found >= 5, "the thread continues until the channel is full");
}

#[test]
fn dropping_ends_the_thread() {
    let mut prefetch = Prefetch::new(loader(), 1).unwrap();
    prefetch.batch(0).unwrap();
    let held = Arc::downgrade(&prefetch.loader);
    drop(prefetch);
    assert!(held.upgrade().is_none(), "the thread was joined, so the rows are released");
}

#[test]
fn errors_come_with_their_batch_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(&directory.path().join("00000"), TokenType::U16).unwrap();
    for document in 0..40 {
        writer.push(&[1, 2, if document == 25 { 77 } else { 3 }, 0]).unwrap();
    }
    writer.finish().unwrap();
    let source = Arc::new(TokenSource::shards(Corpus::open(directory.path()).unwrap(), 5, 0));
    let options = PackOptions {
        sequence_length: 4,
        packing: Packing::Concat,
        seed: 0,
        remainder: Remainder::Drop,
    };
    let rows =
        pack_documents(Arc::clone(&source), &source.all_documents().unwrap(), &options).unwrap();
    let loader = Loader::new(rows, 1, 0).unwrap();
    let bad = (0..40).find(|&index| loader.batch(index).is_err()).unwrap();
    let mut prefetch = Prefetch::new(loader, 3).unwrap();
    for index in 0..bad {
        prefetch.batch(index).unwrap();
    }
    for _ in 0..2 {
        let message = prefetch.batch(bad).unwrap_err().to_string();
        assert!(message.contains("00000.bin: it holds token 77"), "{message}");
    }
    prefetch.batch(bad + 1).unwrap();
}

#[test]
fn a_depth_of_zero_is_refused() {
    let message = Prefetch::new(loader(), 0).unwrap_err().to_string();
    assert_eq!(message, "`depth` is 0, expected at least 1");
}
