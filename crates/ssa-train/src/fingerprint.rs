//! Fingerprint of a text: a hash of its rows.

use ssa_data::{Mixture, PackedRows};
use ssa_files::Sha256;

use crate::Result;

/// Number of rows that are read per corpus: a sample of large corpora.
const SAMPLED_ROWS: usize = 4096;

/// Hashes (SHA-256) the sizes and shares of all corpora, and tokens and document borders of evenly
/// spaced rows. Adding or removing a document shifts all later rows, so the sample detects it.
pub(crate) fn fingerprint(rows: &Mixture) -> Result<String> {
    fingerprint_of(rows.corpora().zip(rows.shares()))
}

/// The fingerprint of the held-out rows of all corpora in order.
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
