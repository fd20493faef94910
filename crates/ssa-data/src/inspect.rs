//! Inspecting a corpus: verification against the manifest, and statistics.

use std::collections::HashMap;

use ahash::RandomState;
use ssa_text::Tokenizer;

use crate::shard::{Corpus, Manifest, ManifestCheck, ShardReader, TokenizerSum};
use crate::{DataError, Result};

/// Checks a corpus against its manifest: the checksums of all files, that every token is in the
/// vocabulary, and that every document ends with the end-of-document token.
///
/// # Errors
/// Same as [`Manifest::check`]; [`DataError::Corpus`] names the first shard with a wrong token.
pub fn verify(corpus: &Corpus, manifest: &Manifest) -> Result<()> {
    manifest.check(corpus.path(), ManifestCheck::Everything)?;
    corpus.shards().iter().try_for_each(|shard| check_tokens(shard, &manifest.tokenizer))
}

fn check_tokens(shard: &ShardReader, tokenizer: &TokenizerSum) -> Result<()> {
    let damaged = |cause: String| Err(DataError::damaged_shard(shard.path(), cause));
    for document in 0..shard.documents() {
        let tokens = shard.document(document)?;
        let largest = tokens.iter().max();
        if let Some(id) = largest.filter(|&&id| id as usize >= tokenizer.vocab_size) {
            let size = tokenizer.vocab_size;
            return damaged(format!(
                "document {document} has token {id}, but the vocabulary size is {size}"
            ));
        }
        if tokens.last() != Some(&tokenizer.eos_token_id) {
            return damaged(format!(
                "document {document} does not end with the token {}",
                tokenizer.eos_token_id
            ));
        }
    }
    Ok(())
}

/// Statistics of the documents and tokens of a corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Number of documents.
    pub documents: usize,
    /// Number of tokens.
    pub tokens: u64,
    /// Minimum, quartiles and maximum of the document lengths in tokens.
    pub quartiles: [usize; 5],
    /// Tokens in documents of at least 2^k tokens, for each k up to the longest document: how much
    /// of the corpus can train attention over such distances.
    pub tokens_by_length: Vec<u64>,
    /// Number of distinct ids that occur.
    pub distinct_tokens: usize,
    /// The most frequent ids with their counts.
    pub most_frequent: Vec<(u32, u64)>,
}

/// Reads and counts all tokens of a corpus. Lists the `most_frequent` ids; calls `progress` with
/// the documents read and their total number.
///
/// # Errors
/// As [`ShardReader::read`].
pub fn count_tokens(
    corpus: &Corpus,
    most_frequent: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TokenCounts> {
    let documents = corpus.documents();
    let mut lengths = Vec::with_capacity(documents);
    let mut tokens_by_length = Vec::new();
    // A map, not an array: one corrupt id must not allocate memory for all smaller ids.
    let mut counts: HashMap<u32, u64, RandomState> = HashMap::default();
    for document in 0..documents {
        let ids = corpus.document(document)?;
        lengths.push(ids.len());
        let powers = ids.len().checked_ilog2().map_or(0, |power| power as usize + 1);
        tokens_by_length.resize(tokens_by_length.len().max(powers), 0);
        tokens_by_length[..powers].iter_mut().for_each(|tokens| *tokens += ids.len() as u64);
        for &id in &ids {
            *counts.entry(id).or_default() += 1;
        }
        progress(document + 1, documents);
    }
    lengths.sort_unstable();
    let quartile = |quarter: usize| {
        lengths.get((documents.saturating_sub(1)) * quarter / 4).copied().unwrap_or(0)
    };
    let mut occurring: Vec<(u32, u64)> = counts.into_iter().collect();
    let distinct_tokens = occurring.len();
    occurring.sort_unstable_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
    occurring.truncate(most_frequent);
    Ok(TokenCounts {
        documents,
        tokens: corpus.tokens(),
        quartiles: std::array::from_fn(quartile),
        tokens_by_length,
        distinct_tokens,
        most_frequent: occurring,
    })
}

/// Decodes the text of each attention document of a row.
///
/// # Errors
/// Same as [`Tokenizer::decode`].
pub fn decode_row(tokenizer: &Tokenizer, ids: &[u32], cu_seqlens: &[usize]) -> Result<Vec<String>> {
    let texts = cu_seqlens.windows(2).map(|border| tokenizer.decode(&ids[border[0]..border[1]]));
    Ok(texts.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::prepare::tests::{options, prepare_lines};
    use crate::shard::{ShardWriter, TokenType};

    fn corpus(lines: &[&str]) -> (TempDir, Corpus) {
        let folder = tempfile::tempdir().unwrap();
        prepare_lines(lines, &options(&folder.path().join("out"))).unwrap();
        let corpus = Corpus::open(&folder.path().join("out")).unwrap();
        (folder, corpus)
    }

    #[test]
    fn whole_shards_agree_and_every_change_is_found() {
        let (_folder, corpus) = corpus(&["abc", "d", "efgh"]);
        let manifest = Manifest::read(corpus.path()).unwrap().unwrap();
        verify(&corpus, &manifest).unwrap();
        let path = corpus.shards()[0].path().to_owned();
        let mut changed = fs::read(&path).unwrap();
        changed[0] ^= 1;
        fs::write(&path, changed).unwrap();
        let error = verify(&corpus, &manifest).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: its checksum is not ", path.display())), "{error}");
    }

    #[test]
    fn tokens_outside_the_vocabulary_and_missing_ends_are_found() {
        let tokenizer = Manifest::new(&Tokenizer::Bytes, None, vec![], vec![]).tokenizer;
        for (ids, cause) in [
            (vec![vec![1, 300, 256]], "document 0 has token 300, but the vocabulary size is 257"),
            (vec![vec![1, 256], vec![2]], "document 1 does not end with the token 256"),
            (vec![vec![]], "document 0 does not end"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let stem = folder.path().join("x");
            let mut writer = ShardWriter::create(&stem, TokenType::U16).unwrap();
            ids.iter().for_each(|ids| writer.push(ids).unwrap());
            writer.finish().unwrap();
            let shard = ShardReader::open(&stem).unwrap();
            let error = check_tokens(&shard, &tokenizer).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }

    #[test]
    fn documents_and_tokens_are_counted() {
        let (_folder, corpus) = corpus(&["aaa", "b", "aabbbbb", ""]);
        let counts = count_tokens(&corpus, 2, &mut |_, _| ()).unwrap();
        assert_eq!(
            counts,
            TokenCounts {
                documents: 3,
                tokens: 14,
                quartiles: [2, 2, 4, 4, 8],
                tokens_by_length: vec![14, 14, 12, 8],
                distinct_tokens: 3,
                most_frequent: vec![(98, 6), (97, 5)],
            }
        );
    }

    /// Memory depends on the number of distinct ids, not on the largest id.
    #[test]
    fn a_huge_id_is_counted_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::create(&folder.path().join("x"), TokenType::U32).unwrap();
        writer.push(&[7, i32::MAX.cast_unsigned(), 7]).unwrap();
        writer.finish().unwrap();
        let counts =
            count_tokens(&Corpus::open(folder.path()).unwrap(), 9, &mut |_, _| ()).unwrap();
        assert_eq!(counts.most_frequent, [(7, 2), (i32::MAX.cast_unsigned(), 1)]);
    }

    #[test]
    fn rows_are_decoded_by_document() {
        let texts = decode_row(&Tokenizer::Bytes, &[104, 105, 256, 0xff], &[0, 3, 4]).unwrap();
        assert_eq!(texts, ["hi", "\u{fffd}"]);
    }
}
