//! Recognizing a text by a hash of its rows.

use ssa_data::{Mixture, PackedRows};
use ssa_files::Sha256;

use crate::Result;

/// Rows of a corpus that are read: all of a text, a sample of shards.
const SAMPLED_ROWS: usize = 4096;

/// The SHA-256 of the sizes and shares of all corpora, and of tokens and document borders of rows
/// evenly spread over each. A document more or less moves all rows after it, so it shows in the
/// sample.
pub(crate) fn fingerprint(rows: &Mixture) -> Result<String> {
    fingerprint_of(rows.corpora().zip(rows.shares()))
}

/// The fingerprint of held-out rows, one corpus after the other.
pub(crate) fn held_out_fingerprint<'a>(
    parts: impl IntoIterator<Item = &'a PackedRows>,
) -> Result<String> {
    fingerprint_of(parts.into_iter().map(|rows| (rows, 1.0)))
}

fn fingerprint_of<'a>(corpora: impl Iterator<Item = (&'a PackedRows, f64)>) -> Result<String> {
    let mut sum = Sha256::default();
    for (corpus, share) in corpora {
        sum.update(share.to_le_bytes());
        for size in [corpus.len() as u64, corpus.sequence_length() as u64, corpus.valid_tokens()] {
            sum.update(size.to_le_bytes());
        }
        let sampled = corpus.len().min(SAMPLED_ROWS);
        for index in 0..sampled {
            add_row(corpus, index * corpus.len() / sampled, &mut sum)?;
        }
    }
    Ok(sum.finish().to_string())
}

fn add_row(corpus: &PackedRows, index: usize, sum: &mut Sha256) -> Result<()> {
    let row = corpus.row(index)?;
    let ids = row.ids().iter().flat_map(|id| id.to_le_bytes());
    let borders = row.cu_seqlens().iter().flat_map(|&border| (border as u64).to_le_bytes());
    sum.update(ids.chain(borders).collect::<Vec<u8>>());
    Ok(())
}
