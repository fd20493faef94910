use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use ssa_text::TextError;

use super::*;
use crate::DataError;

/// Writes a pair and returns the common path of its files.
fn write(folder: &TempDir, name: &str, token_type: TokenType, documents: &[Vec<u32>]) -> PathBuf {
    let stem = folder.path().join(name);
    let mut writer = ShardWriter::create(&stem, token_type).unwrap();
    documents.iter().for_each(|ids| writer.push(ids).unwrap());
    writer.finish().unwrap();
    stem
}

fn documents_of(corpus: &Corpus) -> Vec<Vec<u32>> {
    (0..corpus.documents()).map(|document| corpus.document(document).unwrap()).collect()
}

fn with(stem: &Path, extension: &str) -> PathBuf {
    stem.with_file_name(format!("{}.{extension}", stem.file_name().unwrap().display()))
}

proptest! {
    // Every case syncs files to disk.
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn reading_undoes_writing(
        documents in prop::collection::vec(prop::collection::vec(0_u32..60_000, 0..20), 0..20),
        wide in any::<bool>(),
        cut in 0_usize..20,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let token_type = if wide { TokenType::U32 } else { TokenType::U16 };
        let cut = cut.min(documents.len());
        write(&folder, "b.0", token_type, &documents[cut..]);
        write(&folder, "a.1", token_type, &documents[..cut]);
        let corpus = Corpus::open(folder.path()).unwrap();
        prop_assert_eq!(documents_of(&corpus), documents.clone());
        prop_assert_eq!(corpus.tokens(), documents.iter().map(|ids| ids.len() as u64).sum::<u64>());
        for (number, ids) in documents.iter().enumerate() {
            prop_assert_eq!(corpus.document_tokens(number), ids.len());
            let (shard, number) = corpus.shard_of(number);
            let mut half = Vec::new();
            shard.read(number, ids.len() / 2..ids.len(), &mut half).unwrap();
            prop_assert_eq!(half, &ids[ids.len() / 2..]);
        }
    }
}

/// A pair as written by Megatron-LM's own builder from two documents of two and one sentences.
#[test]
fn a_pair_of_another_program_is_read_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let mut idx = b"MMIDIDX\0\0".to_vec();
    idx.extend(1_u64.to_le_bytes());
    idx.push(4);
    idx.extend(3_u64.to_le_bytes());
    idx.extend(3_u64.to_le_bytes());
    [2_i32, 1, 3].iter().for_each(|length| idx.extend(length.to_le_bytes()));
    [0_i64, 8, 12].iter().for_each(|pointer| idx.extend(pointer.to_le_bytes()));
    [0_i64, 2, 3].iter().for_each(|border| idx.extend(border.to_le_bytes()));
    fs::write(folder.path().join("text_document.idx"), &idx).unwrap();
    let tokens = [5_i32, 6, 0, 70_000, 8, 0];
    let bin: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    fs::write(folder.path().join("text_document.bin"), bin).unwrap();

    for name in ["text_document", "text_document.bin", "text_document.idx", ""] {
        let corpus = Corpus::open(&folder.path().join(name)).unwrap();
        assert_eq!(documents_of(&corpus), [vec![5, 6, 0], vec![70_000, 8, 0]], "{name}");
        assert_eq!(corpus.shards()[0].token_type(), TokenType::U32);
        assert!(Corpus::is_at(&folder.path().join(name)), "{name}");
    }
    fs::remove_file(folder.path().join("text_document.bin")).unwrap();
    assert!(!Corpus::is_at(&folder.path().join("text_document.idx")));
}

#[test]
fn our_index_is_the_one_megatron_reads() {
    let folder = tempfile::tempdir().unwrap();
    let stem = write(&folder, "x", TokenType::U16, &[vec![1, 2], vec![], vec![3]]);
    let idx = fs::read(with(&stem, "idx")).unwrap();
    let mut expected = b"MMIDIDX\0\0".to_vec();
    expected.extend(1_u64.to_le_bytes());
    expected.push(8);
    expected.extend(3_u64.to_le_bytes());
    expected.extend(4_u64.to_le_bytes());
    [2_i32, 0, 1].iter().for_each(|length| expected.extend(length.to_le_bytes()));
    [0_i64, 4, 4].iter().for_each(|pointer| expected.extend(pointer.to_le_bytes()));
    [0_i64, 1, 2, 3].iter().for_each(|border| expected.extend(border.to_le_bytes()));
    assert_eq!(idx, expected);
    assert_eq!(fs::read(with(&stem, "bin")).unwrap(), [1, 0, 2, 0, 3, 0]);
}

#[test]
fn checksums_match_the_files_and_no_temporary_file_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(&folder.path().join("x"), TokenType::U16).unwrap();
    writer.push(&[0x6261, 0x0063]).unwrap();
    let ShardFiles { bin, idx, bytes } = writer.finish().unwrap();
    assert_eq!(bytes, None, "the bytes of text are unknown");
    // SHA-256 of "abc\0".
    assert_eq!(bin.sha256, "dc1114cd074914bd872cc1f9a23ec910ea2203bc79779ab2e17da25782a624fc");
    assert_eq!((bin.bytes, idx.bytes), (4, 34 + 4 + 8 + 16));

    drop(ShardWriter::create(&folder.path().join("y"), TokenType::U16).unwrap());
    let mut names: Vec<_> =
        folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["x.bin", "x.idx"]);
}

#[test]
fn an_id_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (token_type, id) in [(TokenType::U16, 1 << 16), (TokenType::U32, 1 << 31)] {
        let mut writer = ShardWriter::create(&folder.path().join("x"), token_type).unwrap();
        writer.push(&[id - 1]).unwrap();
        assert!(matches!(
            writer.push(&[id]),
            Err(DataError::Text(TextError::UnknownToken { id: named, .. })) if named == id
        ));
    }
    assert_eq!(TokenType::for_vocabulary(65_536), TokenType::U16);
    assert_eq!(TokenType::for_vocabulary(65_537), TokenType::U32);
}

#[test]
fn damaged_pairs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let stem = write(&folder, "x", TokenType::U16, &[vec![1, 2], vec![3]]);
    let other = write(&folder, "other", TokenType::U16, &[vec![1, 2, 3, 4]]);
    let (bin, idx) = (with(&stem, "bin"), with(&stem, "idx"));
    let (bin_bytes, idx_bytes) = (fs::read(&bin).unwrap(), fs::read(&idx).unwrap());
    let edited = |at: usize, value: u8| {
        let mut bytes = idx_bytes.clone();
        bytes[at] = value;
        bytes
    };
    let swapped = fs::read(with(&other, "bin")).unwrap();
    for (path, bytes, cause) in [
        (&bin, bin_bytes[..4].to_vec(), "it has 4 bytes where its index "),
        (&bin, swapped, "it has 8 bytes where its index "),
        (&bin, vec![], "it has 0 bytes where its index "),
        (&idx, vec![], "it is not a Megatron index"),
        (&idx, bin_bytes.clone(), "it is not a Megatron index"),
        (&idx, idx_bytes[..30].to_vec(), "it is not a Megatron index"),
        (
            &idx,
            idx_bytes[..idx_bytes.len() - 1].to_vec(),
            "it has 81 bytes where its header promises 82",
        ),
        (&idx, edited(9, 2), "it is a Megatron index of version 2"),
        (&idx, edited(17, 6), "its tokens have type 6"),
        (&idx, edited(25, 255), "its header is damaged"),
        (&idx, edited(26, 0), "its header is damaged"),
        (
            &idx,
            edited(34, 1),
            "sequence 1 does not start where the one before ends (byte 4 instead of 2)",
        ),
        (&idx, edited(37, 255), "sequence 0 has a length of -"),
        (&idx, edited(58, 1), "its document borders do not ascend from 0 to its 2 sequences"),
        (&idx, edited(66, 3), "its document borders do not ascend"),
        (&idx, edited(74, 1), "its document borders do not ascend"),
    ] {
        fs::write(&bin, &bin_bytes).unwrap();
        fs::write(&idx, &idx_bytes).unwrap();
        fs::write(path, bytes).unwrap();
        let error = ShardReader::open(&stem).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {cause}", path.display())), "{error}");
        assert!(error.ends_with("recreate it with `ssa data prepare`"), "{error}");
    }
}

#[test]
fn missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Corpus::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("no shard (.bin and .idx files) in this directory"), "{error}");
    assert!(!Corpus::is_at(folder.path()) && !Corpus::is_at(&folder.path().join("none")));
    let stem = write(&folder, "x", TokenType::U16, &[vec![1]]);
    fs::remove_file(with(&stem, "bin")).unwrap();
    let error = Corpus::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: no such file", with(&stem, "bin").display())),
        "{error}"
    );
}

#[test]
fn a_missing_corpus_is_reported_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    let error = Corpus::open(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: no such file or directory", path.display())),
        "{error}"
    );
}

#[test]
fn the_bytes_of_text_are_stored_with_the_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let stem = folder.path().join("x");
    let mut writer = ShardWriter::create(&stem, TokenType::U16).unwrap();
    writer.push_encoded(&[1, 0, 2, 0], Some(7)).unwrap();
    writer.push_encoded(&[3, 0], Some(300)).unwrap();
    let bytes = writer.finish().unwrap().bytes.unwrap();
    assert_eq!(bytes.bytes, 8);
    let corpus = Corpus::open(folder.path()).unwrap();
    assert_eq!([0, 1].map(|document| corpus.text_bytes(document)), [Some(7), Some(300)]);
    fs::write(with(&stem, "bytes"), [0; 7]).unwrap();
    let error = Corpus::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("x.bytes: it has 7 bytes for 2 documents"), "{error}");
    fs::remove_file(with(&stem, "bytes")).unwrap();
    assert_eq!(Corpus::open(folder.path()).unwrap().text_bytes(0), None);
}

/// Reads are positioned: no memory is mapped that the system takes away with the file's end.
#[test]
fn a_shard_that_shrinks_while_it_is_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than what is read at a time.
    let long: Vec<u32> = (0..20_000).collect();
    let stem = write(&folder, "x", TokenType::U16, &[vec![1, 2], long.clone(), vec![3]]);
    let shard = ShardReader::open(&stem).unwrap();
    assert_eq!(shard.document(1).unwrap(), long);
    let bin = fs::OpenOptions::new().write(true).open(with(&stem, "bin")).unwrap();
    bin.set_len(30_000).unwrap();
    assert_eq!(shard.document(0).unwrap(), [1, 2]);
    for document in [1, 2] {
        let error = shard.document(document).unwrap_err().to_string();
        assert!(error.contains("x.bin: it was truncated while in use"), "{error}");
    }
}
