use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::shard::{Corpus, ShardWriter, TokenType};

const EOS: u32 = 1000;

fn options(sequence_length: usize, remainder: Remainder) -> PackOptions {
    PackOptions { sequence_length, packing: Packing::Concat, seed: 5, remainder }
}

fn packed_by(packing: Packing, documents: &[Vec<u32>], sequence_length: usize) -> PackedRows {
    pack(documents, EOS, &PackOptions { packing, ..options(sequence_length, Remainder::Pad) })
        .unwrap()
}

/// Documents whose tokens are all different, so that a token identifies its position.
fn distinct(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut next = EOS + 1;
    let mut take = |length: &usize| {
        let start = next;
        next += *length as u32;
        (start..next).collect()
    };
    lengths.iter().map(&mut take).collect()
}

fn all(rows: &PackedRows) -> Vec<PackedRow> {
    rows.iter().collect::<Result<_>>().unwrap()
}

/// One row's ids, labels and borders.
fn row(rows: &PackedRows, index: usize) -> (Vec<u32>, Vec<i32>, Vec<usize>) {
    let row = rows.row(index).unwrap();
    (row.ids().to_vec(), row.labels().collect(), row.cu_seqlens().to_vec())
}

#[test]
fn a_long_document_continues_in_the_next_row() {
    const X: i32 = IGNORE_INDEX;
    for &packing in Packing::ALL {
        let rows = packed_by(packing, &[vec![1, 2, 3, 4, 5, 6, 7, 8]], 4);
        assert_eq!(row(&rows, 0), (vec![1, 2, 3, 4], vec![2, 3, 4, 5], vec![0, 4]));
        assert_eq!(row(&rows, 1), (vec![5, 6, 7, 8], vec![6, 7, 8, EOS as i32], vec![0, 4]));
        // The end of a document has no target; the padding is a separate document.
        assert_eq!(row(&rows, 2), (vec![EOS; 4], vec![X; 4], vec![0, 1, 4]));
        assert_eq!(rows.row(2).unwrap().valid_tokens(), 1);
        assert_eq!((rows.valid_tokens(), rows.dropped_tokens()), (9, 0));
        assert_eq!(rows.utilization(), 9.0 / 12.0);
    }
}

#[test]
fn short_documents_share_a_row() {
    for &packing in Packing::ALL {
        let rows = packed_by(packing, &[vec![1], vec![1], vec![]], 5);
        let labels = vec![EOS as i32, IGNORE_INDEX, EOS as i32, IGNORE_INDEX, IGNORE_INDEX];
        assert_eq!(row(&rows, 0), (vec![1, EOS, 1, EOS, EOS], labels, vec![0, 2, 4, 5]));
    }
}

#[test]
fn the_partial_row_is_dropped_for_training() {
    let rows = pack(&[(1..=9).collect()], EOS, &options(4, Remainder::Drop)).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows.dropped_tokens(), rows.utilization()), (2, 1.0));
    // The target of the last token is in the dropped row but still known.
    assert_eq!(row(&rows, 1).1, [6, 7, 8, 9]);
    assert_eq!(rows.sequence_length(), 4);
}

#[test]
fn whole_rows_are_neither_padded_nor_dropped() {
    for remainder in [Remainder::Drop, Remainder::Pad] {
        let rows = pack(&[vec![1, 2, 3]], EOS, &options(4, remainder)).unwrap();
        assert_eq!(
            row(&rows, 0),
            (vec![1, 2, 3, EOS], vec![2, 3, EOS as i32, IGNORE_INDEX], vec![0, 4])
        );
        assert_eq!((rows.len(), rows.dropped_tokens()), (1, 0));
    }
}

#[test]
fn best_fit_fills_the_smallest_sufficient_room() {
    // Including ends: 7, 6, 4, 3, 2 and 2 tokens; rows of 10 hold 7 + 3, 6 + 4 and 2 + 2.
    let documents = distinct(&[6, 5, 3, 2, 1, 1]);
    let rows = packed_by(Packing::BestFit, &documents, 10);
    let borders: Vec<Vec<usize>> = all(&rows).iter().map(|row| row.cu_seqlens().to_vec()).collect();
    assert_eq!(borders, [vec![0, 7, 10], vec![0, 6, 10], vec![0, 2, 4, 10]]);
    assert_eq!(rows.utilization(), 0.8);
}

#[test]
fn a_greedy_row_ends_before_the_document_that_does_not_fit() {
    let documents = distinct(&[4, 4, 4, 4, 25]);
    let rows = packed_by(Packing::Greedy, &documents, 10);
    // Two documents of five fill a row. The one of 26 always begins a row, and its remainder of 6
    // ends one.
    let long = all(&rows).iter().position(|row| row.cu_seqlens() == [0, 10]).unwrap();
    assert_eq!(row(&rows, long + 1).2, [0, 10]);
    assert_eq!(row(&rows, long + 2).2, [0, 6, 10]);
    assert!(all(&rows).iter().filter(|row| row.cu_seqlens() == [0, 5, 10]).count() >= 1);
}

#[test]
fn the_seed_orders_the_documents() {
    let documents = distinct(&[3; 20]);
    for &packing in Packing::ALL {
        let options = PackOptions { packing, ..options(8, Remainder::Pad) };
        let packed = |seed| all(&pack(&documents, EOS, &PackOptions { seed, ..options }).unwrap());
        assert_eq!(packed(1), packed(1));
        assert_ne!(packed(1), packed(2));
        let first_of_each: Vec<u32> = documents.iter().map(|ids| ids[0]).collect();
        let ids = packed(1).iter().flat_map(|row| row.ids().to_vec()).collect::<Vec<_>>();
        let order: Vec<u32> = ids.into_iter().filter(|id| first_of_each.contains(id)).collect();
        assert!(!order.is_sorted(), "documents are shuffled");
    }
}

#[test]
fn the_order_of_documents_in_memory_does_not_count() {
    let mut documents = distinct(&[3, 1, 4, 1, 5, 9, 2, 6]);
    documents.push(vec![7, 7]);
    let forwards = all(&packed_by(Packing::Concat, &documents, 6));
    documents.reverse();
    assert_eq!(all(&packed_by(Packing::Concat, &documents, 6)), forwards);
}

fn any_packing() -> impl Strategy<Value = Packing> {
    prop::sample::select(Packing::ALL)
}

proptest! {
    #[test]
    fn packing_is_a_partition_and_every_token_but_the_first_is_a_target_once(
        lengths in prop::collection::vec(0_usize..40, 1..20),
        sequence_length in 2_usize..50,
        seed: u64,
        pad: bool,
        packing in any_packing(),
    ) {
        let documents = distinct(&lengths);
        let with_ends = lengths.iter().filter(|&&length| length > 0).map(|length| length + 1);
        let total: usize = with_ends.sum();
        let drop = !pad && packing == Packing::Concat;
        let remainder = if pad { Remainder::Pad } else { Remainder::Drop };
        prop_assume!(total >= if drop { sequence_length } else { 1 });
        let options = PackOptions { sequence_length, packing, seed, remainder };
        let rows = pack(&documents, EOS, &options).unwrap();

        let mut valid = 0;
        for row in all(&rows) {
            prop_assert_eq!(row.ids().len(), sequence_length);
            prop_assert_eq!(row.labels().count(), sequence_length);
            let borders = row.cu_seqlens();
            prop_assert_eq!((borders[0], borders.last()), (0, Some(&sequence_length)));
            prop_assert!(row.cu_seqlens().is_sorted_by(|a, b| a < b));
            prop_assert!(row.cu_seqlens().contains(&row.valid_tokens()), "padding is a document");
            prop_assert!(row.labels().skip(row.valid_tokens()).all(|label| label == IGNORE_INDEX));
            valid += row.valid_tokens();
        }
        prop_assert_eq!(rows.valid_tokens(), valid as u64);
        let dropped = rows.dropped_tokens() as usize;
        prop_assert_eq!(valid + dropped, total);
        prop_assert!(dropped < sequence_length && (drop || dropped == 0));
        prop_assert_eq!(rows.utilization(), valid as f64 / (rows.len() * sequence_length) as f64);

        check_tokens(&documents, &rows)?;
        if packing != Packing::Concat {
            check_whole(&rows, &documents)?;
        }
    }

    #[test]
    fn concat_wastes_nothing_but_the_end(lengths in prop::collection::vec(1_usize..40, 1..20)) {
        let rows = packed_by(Packing::Concat, &distinct(&lengths), 16);
        let partial = all(&rows).iter().filter(|row| row.valid_tokens() < 16).count();
        prop_assert!(partial <= 1);
    }
}

/// Every token occurs once, and its target is the next token of its document, even if that is in a
/// different row.
fn check_tokens(documents: &[Vec<u32>], rows: &PackedRows) -> Result<(), TestCaseError> {
    let followers: HashMap<u32, u32> = documents
        .iter()
        .flat_map(|ids| {
            ids.iter().enumerate().map(|(at, &id)| (id, ids.get(at + 1).copied().unwrap_or(EOS)))
        })
        .collect();
    let (mut seen, mut ends, mut targets, mut end_targets) = (HashMap::new(), 0, HashMap::new(), 0);
    for row in all(rows) {
        for (&id, label) in row.ids().iter().zip(row.labels()).take(row.valid_tokens()) {
            if id == EOS {
                ends += 1;
                prop_assert_eq!(label, IGNORE_INDEX, "the end of a document has no successor");
            } else {
                prop_assert_eq!(label, followers[&id] as i32);
                *seen.entry(id).or_insert(0) += 1;
            }
            if label == EOS as i32 {
                end_targets += 1;
            } else if label != IGNORE_INDEX {
                *targets.entry(label as u32).or_insert(0) += 1;
            }
        }
        for (&start, &end) in row
            .cu_seqlens()
            .iter()
            .zip(&row.cu_seqlens()[1..])
            .filter(|(_, end)| **end <= row.valid_tokens())
        {
            let piece = &row.ids()[start..end];
            prop_assert!(
                piece.windows(2).all(|pair| followers.get(&pair[0]) == Some(&pair[1])),
                "one document"
            );
        }
    }
    prop_assert!(seen.values().chain(targets.values()).all(|&count| count == 1));
    if rows.dropped_tokens() == 0 {
        let with_text = documents.iter().filter(|ids| !ids.is_empty());
        prop_assert_eq!(seen.len(), followers.len());
        prop_assert_eq!(targets.len(), followers.len() - with_text.clone().count());
        prop_assert_eq!((ends, end_targets), (with_text.clone().count(), with_text.count()));
    }
    Ok(())
}

/// A document that fits into a row is in one piece; a longer one is in as few pieces as possible.
fn check_whole(rows: &PackedRows, documents: &[Vec<u32>]) -> Result<(), TestCaseError> {
    let length = rows.sequence_length();
    let pieces: usize = all(rows)
        .iter()
        .map(|row| row.cu_seqlens().len() - 1 - usize::from(row.valid_tokens() < length))
        .sum();
    let fewest =
        documents.iter().filter(|ids| !ids.is_empty()).map(|ids| (ids.len() + 1).div_ceil(length));
    prop_assert_eq!(pieces, fewest.sum::<usize>());
    Ok(())
}

#[test]
fn concat_uses_more_of_its_rows_than_best_fit_and_that_more_than_greedy() {
    for seed in 0..20_u64 {
        let lengths: Vec<usize> = (0..500)
            .map(|number| 1 + (crate::random::mix(seed << 32 | number) % 700) as usize)
            .collect();
        let documents = distinct(&lengths);
        let [concat, best_fit, greedy] = [Packing::Concat, Packing::BestFit, Packing::Greedy]
            .map(|packing| packed_by(packing, &documents, 512).utilization());
        assert!(concat >= best_fit && best_fit > greedy, "{concat} {best_fit} {greedy}");
        assert!(best_fit > 0.97, "{best_fit}");
    }
}

/// A corpus of two shards with these documents and their ends.
fn shards(directory: &std::path::Path, documents: &[Vec<u32>], token_type: TokenType) -> Corpus {
    for (name, part) in ["00000", "00001"].iter().zip(documents.chunks(documents.len().div_ceil(2)))
    {
        let mut writer = ShardWriter::create(&directory.join(name), token_type).unwrap();
        for ids in part {
            let ended: Vec<u32> = ids.iter().copied().chain([EOS]).collect();
            writer.push(&ended).unwrap();
        }
        writer.finish().unwrap();
    }
    Corpus::open(directory).unwrap()
}

#[test]
fn shards_pack_like_documents_in_memory() {
    // Ascending tokens: the shards have the same document order as the content.
    let documents = distinct(&[3, 100, 7, 1, 20, 64, 5, 33, 2, 9]);
    for token_type in [TokenType::U16, TokenType::U32] {
        let directory = tempfile::tempdir().unwrap();
        let source = Arc::new(TokenSource::shards(
            shards(directory.path(), &documents, token_type),
            5000,
            EOS,
        ));
        for &packing in Packing::ALL {
            let options = PackOptions { packing, ..options(16, Remainder::Pad) };
            let all_documents = source.all_documents().unwrap();
            let rows = pack_documents(Arc::clone(&source), &all_documents, &options).unwrap();
            assert_eq!(all(&rows), all(&packed_by(packing, &documents, 16)));
        }
    }
}

#[test]
fn the_first_rows_are_rows_too() {
    for &packing in Packing::ALL {
        let rows = packed_by(packing, &distinct(&[30, 4, 5, 1, 9, 12, 2]), 16);
        for count in [0, 1, 3, 100] {
            let first = rows.first(count);
            assert_eq!(all(&first), all(&rows)[..first.len()]);
            assert_eq!(first.len(), count.clamp(1, rows.len()));
            let valid: usize = all(&first).iter().map(PackedRow::valid_tokens).sum();
            assert_eq!(first.valid_tokens(), valid as u64);
        }
    }
}

#[test]
fn some_documents_can_be_packed() {
    let documents = distinct(&[3, 4, 5]);
    let source = Arc::new(TokenSource::in_memory(&documents, EOS));
    let rows = pack_documents(source, &[0, 2], &options(16, Remainder::Pad)).unwrap();
    assert_eq!((rows.len(), rows.valid_tokens()), (1, 10));
    let ids = row(&rows, 0).0;
    assert!(ids.contains(&documents[2][4]) && !ids.contains(&documents[1][0]));
}

#[test]
fn a_token_outside_the_vocabulary_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = shards(directory.path(), &distinct(&[3, 4, 5, 6]), TokenType::U16);
    // The first shard ends below 1010, the second does not.
    let source = Arc::new(TokenSource::shards(corpus, 1010, EOS));
    let documents = source.all_documents().unwrap();
    let rows = pack_documents(source, &documents, &options(22, Remainder::Pad)).unwrap();
    let message = rows.row(0).unwrap_err().to_string();
    assert!(message.contains("00001.bin: it holds token 1010"), "{message}");
    assert!(
        message.contains("vocabulary of 1010") && message.contains("another tokenizer"),
        "{message}"
    );
}

#[test]
fn a_row_is_described_in_few_bytes() {
    let rows = packed_by(Packing::Concat, &distinct(&[31; 64]), 64);
    // Two documents of 32 tokens in each of 32 rows.
    assert_eq!((rows.len(), rows.index_bytes()), (32, 32 * (4 + 2 * 8)));
}

#[test]
fn packings_have_names() {
    for &packing in Packing::ALL {
        assert_eq!(packing.to_string().parse::<Packing>().unwrap(), packing);
    }
    // The spelling of version 0.1.0, in the configuration of its runs.
    assert_eq!("best_fit".parse::<Packing>().unwrap(), Packing::BestFit);
    assert_eq!(Packing::BestFit.to_string(), "best-fit");
    let message = "first".parse::<Packing>().unwrap_err().to_string();
    assert_eq!(message, "unknown packing `first`, expected `concat`, `best-fit` or `greedy`");
}

#[test]
fn bad_inputs_are_named() {
    let message =
        |documents: &[Vec<u32>], options| pack(documents, EOS, &options).unwrap_err().to_string();
    assert_eq!(
        message(&distinct(&[20, 0, 9]), options(32, Remainder::Drop)),
        "the corpus has 31 tokens (ends of documents included) but one row needs 32\nhint: set \
         data.sequence_length (--sequence-length) to 31 or less, or add text"
    );
    let one_row = pack(&distinct(&[20, 0, 9]), EOS, &options(31, Remainder::Drop)).unwrap();
    assert_eq!(one_row.len(), 1);
    assert_eq!(
        message(&[vec![1]], options(1, Remainder::Pad)),
        "`sequence_length` is 1, expected from 2 to 2^31"
    );
    for nothing in [vec![], vec![vec![]]] {
        let expected = "the documents hold no text\nhint: add files with text";
        assert_eq!(message(&nothing, options(8, Remainder::Pad)), expected);
    }
}
