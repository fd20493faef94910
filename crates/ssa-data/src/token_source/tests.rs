use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::shard::{ShardWriter, TokenType};

const EOS: u32 = 9;

fn write_shard(directory: &Path, name: &str, documents: usize) {
    let mut writer = ShardWriter::create(&directory.join(name), TokenType::U16).unwrap();
    (0..documents).for_each(|document| writer.push(&[document as u32 % 7, EOS]).unwrap());
    writer.finish().unwrap();
}

fn open(directory: &Path) -> TokenSource {
    TokenSource::shards(Corpus::open(directory).unwrap(), 10, EOS)
}

#[test]
fn the_share_is_held_out_and_the_seed_chooses() {
    let directory = tempfile::tempdir().unwrap();
    write_shard(directory.path(), "00000", 6000);
    write_shard(directory.path(), "00001", 4000);
    let source = open(directory.path());
    for fraction in [0.01, 0.2, 0.9] {
        let split = source.split(fraction, 1).unwrap();
        let share = split.held_out.len() as f64 / 10_000.0;
        // Four standard deviations.
        assert!(
            (share - fraction).abs() < 4.0 * (fraction * (1.0 - fraction) / 1e4).sqrt(),
            "{share}"
        );
        let both: HashSet<u32> = split.train.iter().chain(&split.held_out).copied().collect();
        assert_eq!((both.len(), split.train.len() + split.held_out.len()), (10_000, 10_000));
        assert_eq!(source.split(fraction, 1).unwrap(), split);
        assert_ne!(source.split(fraction, 2).unwrap(), split);
    }
    // A larger share holds out what a smaller one does, and more.
    let small = source.split(0.05, 1).unwrap().held_out;
    let large: HashSet<u32> = source.split(0.1, 1).unwrap().held_out.into_iter().collect();
    assert!(small.iter().all(|document| large.contains(document)));
}

#[test]
fn a_document_keeps_its_side_when_shards_are_added_or_moved() {
    let first = tempfile::tempdir().unwrap();
    write_shard(first.path(), "b", 500);
    let held_out = open(first.path()).split(0.3, 1).unwrap().held_out;
    let second = tempfile::tempdir().unwrap();
    write_shard(second.path(), "a", 100);
    for extension in ["bin", "idx"] {
        let name = format!("b.{extension}");
        fs::copy(first.path().join(&name), second.path().join(&name)).unwrap();
    }
    let of_both = open(second.path()).split(0.3, 1).unwrap().held_out;
    let of_b: Vec<u32> = of_both
        .into_iter()
        .filter(|&document| document >= 100)
        .map(|document| document - 100)
        .collect();
    assert_eq!(of_b, held_out);
}

#[test]
fn one_document_stays_on_each_side() {
    let directory = tempfile::tempdir().unwrap();
    write_shard(directory.path(), "00000", 2);
    for fraction in [1e-9, 0.5, 1.0 - 1e-9] {
        let split = open(directory.path()).split(fraction, 1).unwrap();
        assert_eq!((split.train.len(), split.held_out.len()), (1, 1));
    }
}

#[test]
fn memory_is_split_by_content() {
    let documents: Vec<Vec<u32>> = (0..100).map(|document| vec![document, 1]).collect();
    let reversed: Vec<Vec<u32>> = documents.iter().rev().cloned().collect();
    let [split, again] = [documents, reversed]
        .map(|documents| TokenSource::in_memory(&documents, 200).split(0.2, 3).unwrap());
    assert_eq!(split, again);
}

#[test]
fn bad_inputs_are_named() {
    let source = TokenSource::in_memory(&[vec![1]], EOS);
    for fraction in [0.0, 1.0, f64::NAN] {
        let message = source.split(fraction, 0).unwrap_err().to_string();
        assert!(message.starts_with("`held_out_fraction` is "), "{message}");
    }
    let message = source.split(0.5, 0).unwrap_err().to_string();
    assert!(message.starts_with("the text: cannot hold out a document: there are 1"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    write_shard(directory.path(), "00000", 1);
    let message = open(directory.path()).split(0.5, 0).unwrap_err().to_string();
    assert!(message.starts_with(&directory.path().display().to_string()), "{message}");
    assert!(message.contains("data.valid_corpora"), "{message}");
}
