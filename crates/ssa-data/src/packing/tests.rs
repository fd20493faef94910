use proptest::prelude::*;

use super::*;

const EOS: u32 = 1000;

fn options(sequence_length: usize, remainder: Remainder) -> PackOptions {
    PackOptions { sequence_length, seed: 5, remainder }
}

/// Documents whose tokens are all different, so that a token says where it comes from.
fn distinct(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut next = EOS + 1;
    let mut take = |length: &usize| {
        let start = next;
        next += *length as u32;
        (start..next).collect()
    };
    lengths.iter().map(&mut take).collect()
}

/// One row's ids, labels and borders.
fn row(rows: &PackedRows, index: usize) -> (Vec<u32>, Vec<i32>, Vec<usize>) {
    let row = &rows.rows()[index];
    (row.ids().to_vec(), row.labels().collect(), row.cu_seqlens().to_vec())
}

#[test]
fn a_long_document_goes_on_in_the_next_row() {
    const X: i32 = IGNORE_INDEX;
    let rows = pack(&[vec![1, 2, 3, 4, 5, 6, 7, 8]], EOS, &options(4, Remainder::Pad)).unwrap();
    assert_eq!(row(&rows, 0), (vec![1, 2, 3, 4], vec![2, 3, 4, 5], vec![0, 4]));
    assert_eq!(row(&rows, 1), (vec![5, 6, 7, 8], vec![6, 7, 8, EOS as i32], vec![0, 4]));
    // The end alone has no target; the padding is a document of its own.
    assert_eq!(row(&rows, 2), (vec![EOS; 4], vec![X; 4], vec![0, 1, 4]));
    assert_eq!(rows.rows()[2].valid_tokens(), 1);
    assert_eq!((rows.valid_tokens(), rows.dropped_tokens()), (9, 0));
    assert_eq!(rows.utilisation(), 9.0 / 12.0);
}

#[test]
fn short_documents_share_a_row() {
    let rows = pack(&[vec![1], vec![1], vec![]], EOS, &options(5, Remainder::Pad)).unwrap();
    let labels = vec![EOS as i32, IGNORE_INDEX, EOS as i32, IGNORE_INDEX, IGNORE_INDEX];
    assert_eq!(row(&rows, 0), (vec![1, EOS, 1, EOS, EOS], labels, vec![0, 2, 4, 5]));
}

#[test]
fn the_partial_row_is_dropped_for_training() {
    let rows = pack(&[(1..=9).collect()], EOS, &options(4, Remainder::Drop)).unwrap();
    assert_eq!(rows.rows().len(), 2);
    assert_eq!((rows.dropped_tokens(), rows.utilisation()), (2, 1.0));
    // The target of the last token lies in the dropped row and is known all the same.
    assert_eq!(row(&rows, 1).1, [6, 7, 8, 9]);
    assert_eq!(rows.sequence_length(), 4);
}

#[test]
fn whole_rows_are_neither_padded_nor_dropped() {
    for remainder in [Remainder::Drop, Remainder::Pad] {
        let rows = pack(&[vec![1, 2, 3]], EOS, &options(4, remainder)).unwrap();
        assert_eq!(row(&rows, 0), (vec![1, 2, 3, EOS], vec![2, 3, EOS as i32, IGNORE_INDEX], vec![0, 4]));
        assert_eq!((rows.rows().len(), rows.dropped_tokens()), (1, 0));
    }
}

#[test]
fn the_seed_orders_the_documents() {
    let documents = distinct(&[3; 20]);
    let packed = |seed| pack(&documents, EOS, &PackOptions { seed, ..options(8, Remainder::Pad) }).unwrap();
    assert_eq!(packed(1), packed(1));
    assert_ne!(packed(1), packed(2));
    let first_of_each: Vec<u32> = documents.iter().map(|ids| ids[0]).collect();
    let order = |seed| -> Vec<u32> {
        let ids = packed(seed).rows().iter().flat_map(|row| row.ids().to_vec()).collect::<Vec<_>>();
        ids.into_iter().filter(|id| first_of_each.contains(id)).collect()
    };
    assert!(!order(1).is_sorted(), "documents are shuffled");
}

proptest! {
    #[test]
    fn packing_is_a_partition_and_every_token_but_the_first_is_a_target_once(
        lengths in prop::collection::vec(0_usize..40, 1..20),
        sequence_length in 2_usize..50,
        seed: u64,
        pad: bool,
    ) {
        let documents = distinct(&lengths);
        let total: usize = lengths.iter().filter(|&&length| length > 0).map(|length| length + 1).sum();
        let remainder = if pad { Remainder::Pad } else { Remainder::Drop };
        prop_assume!(total >= if pad { 1 } else { sequence_length });
        let rows = pack(&documents, EOS, &PackOptions { sequence_length, seed, remainder }).unwrap();

        for row in rows.rows() {
            prop_assert_eq!(row.ids().len(), sequence_length);
            prop_assert_eq!(row.labels().count(), sequence_length);
            prop_assert_eq!((row.cu_seqlens()[0], row.cu_seqlens().last()), (0, Some(&sequence_length)));
            prop_assert!(row.cu_seqlens().is_sorted_by(|a, b| a < b));
            prop_assert!(row.cu_seqlens().contains(&row.valid_tokens()), "padding is a document");
            prop_assert!(row.labels().skip(row.valid_tokens()).all(|label| label == IGNORE_INDEX));
        }
        prop_assert_eq!(rows.valid_tokens() + rows.dropped_tokens(), total);
        prop_assert!(rows.dropped_tokens() < sequence_length && (!pad || rows.dropped_tokens() == 0));
        let utilisation = rows.valid_tokens() as f64 / (rows.rows().len() * sequence_length) as f64;
        prop_assert_eq!(rows.utilisation(), utilisation);

        check_stream(&documents, &rows)?;
    }
}

/// Reads the rows as one stream and finds each document in it, whole, with the labels and borders it should
/// have.
fn check_stream(documents: &[Vec<u32>], rows: &PackedRows) -> Result<(), TestCaseError> {
    let mut stream = Vec::new();
    for row in rows.rows() {
        let begins = |at: usize| row.cu_seqlens().contains(&at);
        let tokens = row.ids().iter().zip(row.labels()).enumerate().take(row.valid_tokens());
        stream.extend(tokens.map(|(at, (&id, label))| (id, label, at == 0, begins(at))));
    }
    let mut left: Vec<&Vec<u32>> = documents.iter().filter(|ids| !ids.is_empty()).collect();
    let mut at = 0;
    while at < stream.len() {
        let found = left.iter().position(|ids| ids[0] == stream[at].0);
        prop_assert!(found.is_some(), "a document begins where the last one ended");
        let ended: Vec<u32> = left.swap_remove(found.unwrap()).iter().copied().chain([EOS]).collect();
        for (index, &expected) in ended.iter().enumerate().take(stream.len() - at) {
            let (id, label, starts_row, begins) = stream[at + index];
            prop_assert_eq!(id, expected);
            let target = ended.get(index + 1).map_or(IGNORE_INDEX, |&next| next as i32);
            prop_assert_eq!(label, target);
            prop_assert_eq!(begins, starts_row || index == 0);
        }
        at += ended.len();
    }
    prop_assert!(rows.dropped_tokens() > 0 || left.is_empty(), "every document is somewhere");
    Ok(())
}

#[test]
fn bad_inputs_are_named() {
    let message = |documents: &[Vec<u32>], options| pack(documents, EOS, &options).unwrap_err().to_string();
    assert_eq!(
        message(&distinct(&[20, 0, 9]), options(32, Remainder::Drop)),
        "the corpus has 31 tokens (end-of-document tokens included) but one row needs 32; set \
         `sequence_length` to 31 or less, or add text"
    );
    assert!(pack(&distinct(&[20, 0, 9]), EOS, &options(31, Remainder::Drop)).is_ok());
    assert_eq!(
        message(&[vec![1]], options(1, Remainder::Pad)),
        "`sequence_length` is 1, expected at least 2"
    );
    for nothing in [vec![], vec![vec![]]] {
        let expected = "the documents hold no text at all; add files with text";
        assert_eq!(message(&nothing, options(8, Remainder::Pad)), expected);
    }
}
