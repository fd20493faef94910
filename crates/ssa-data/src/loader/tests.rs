use proptest::prelude::*;

use super::*;
use crate::{PackOptions, Packing, Remainder, pack};

const EOS: u32 = 0;

fn options(sequence_length: usize, remainder: Remainder) -> PackOptions {
    PackOptions { sequence_length, packing: Packing::Concat, seed: 0, remainder }
}

/// Rows of 4 tokens from one document: the first id identifies the row.
fn rows(count: u32) -> PackedRows {
    pack(&[(1..=4 * count).collect()], EOS, &options(4, Remainder::Drop)).unwrap()
}

fn row_names(batch: &Batch) -> Vec<u32> {
    batch.ids.chunks(batch.tokens).map(|row| row[0]).collect()
}

fn batch(loader: &Loader, index: u64) -> Batch {
    loader.batch(index).unwrap()
}

#[test]
fn a_batch_joins_rows() {
    let rows = pack(&[vec![1, 2, 3, 4]], EOS, &options(3, Remainder::Pad)).unwrap();
    let batch = rows.sequential_batches(2).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.ids, [1, 2, 3, 4, EOS, EOS]);
    assert_eq!(batch.labels, [2, 3, 4, EOS as i32, IGNORE_INDEX, IGNORE_INDEX]);
    assert_eq!(batch.cu_seqlens, [0, 3, 5, 6]);
    assert_eq!(batch.valid, [true, true, true, true, true, false]);
    assert_eq!((batch.batch, batch.tokens), (2, 3));
    assert_eq!((batch.target_tokens(), batch.valid_tokens()), (4, 5));
}

#[test]
fn sequential_batches_cover_every_row_once_in_order() {
    let rows = rows(7);
    let batches = rows.sequential_batches(3).unwrap();
    assert_eq!(batches.len(), 3);
    let batches: Vec<Batch> = batches.collect::<Result<_>>().unwrap();
    assert_eq!(batches.iter().map(|batch| batch.batch).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(batches.iter().flat_map(row_names).collect::<Vec<_>>(), [1, 5, 9, 13, 17, 21, 25]);
    let whole: Vec<Batch> = rows.sequential_batches(100).unwrap().collect::<Result<_>>().unwrap();
    assert_eq!(whole.iter().map(|batch| batch.batch).collect::<Vec<_>>(), [7]);
}

proptest! {
    #[test]
    fn every_epoch_uses_every_row_once(count in 1_u32..20, batch_size in 1_usize..8, seed: u64) {
        let loader = Loader::new(rows(count), batch_size, seed).unwrap();
        // A whole number of epochs: `batch_size` epochs of `count` rows.
        let batches = (0..u64::from(count)).map(|index| batch(&loader, index));
        let drawn: Vec<u32> = batches.flat_map(|batch| row_names(&batch)).collect();
        let expected: Vec<u32> = (0..count).map(|row| 1 + 4 * row).collect();
        for epoch in drawn.chunks(count as usize) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            prop_assert_eq!(&epoch, &expected);
        }
        for index in 0..u64::from(count) {
            let epochs = (index * batch_size as u64) as f64 / f64::from(count);
            prop_assert_eq!(loader.epochs(index), [epochs]);
            prop_assert_eq!(batch(&loader, index).batch, batch_size);
        }
    }
}

#[test]
fn a_batch_depends_on_seed_and_index_alone() {
    let loader = |seed| Loader::new(rows(16), 4, seed).unwrap();
    let uninterrupted: Vec<Batch> = (0..12).map(|index| batch(&loader(1), index)).collect();
    let resumed = loader(1);
    for index in (0..12).rev() {
        assert_eq!(batch(&resumed, index as u64), uninterrupted[index]);
    }
    let epoch = |loader: &Loader, epoch: u64| -> Vec<u32> {
        (4 * epoch..4 * epoch + 4).flat_map(|index| row_names(&batch(loader, index))).collect()
    };
    assert_ne!(epoch(&loader(1), 0), epoch(&loader(2), 0), "the seed matters");
    assert_ne!(epoch(&loader(1), 0), epoch(&loader(1), 1), "each epoch has its own order");
}

#[test]
fn the_order_is_the_same_on_every_platform() {
    let loader = Loader::new(rows(8), 8, 42).unwrap();
    assert_eq!(row_names(&batch(&loader, 0)), [29, 5, 25, 13, 9, 21, 17, 1]);
}

#[test]
fn indices_may_be_arbitrarily_large() {
    let loader = Loader::new(rows(1), 3, 0).unwrap();
    assert_eq!(batch(&loader, u64::MAX).batch, 3);
}

#[test]
fn accessors_report_the_arguments() {
    let loader = Loader::new(rows(5), 2, 0).unwrap();
    assert_eq!((loader.mixture().rows(), loader.batch_size()), (5, 2));
    assert_eq!([0, 1, 5].map(|index| loader.epochs(index)[0]), [0.0, 0.4, 2.0]);
}

#[test]
fn an_empty_batch_is_refused() {
    let expected = "`batch_size` is 0, expected at least 1";
    assert_eq!(Loader::new(rows(1), 0, 0).unwrap_err().to_string(), expected);
    assert_eq!(rows(1).sequential_batches(0).err().unwrap().to_string(), expected);
}
