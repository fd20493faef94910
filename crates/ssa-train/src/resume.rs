//! Whether an unfinished run may be continued as it is asked to be.

use std::path::Path;

use ssa_data::{Mixture, PackedRows};

use crate::checkpoint::{Checkpoint, CheckpointError, Digest, sha256};
use crate::config::Difference;
use crate::journal::{Journal, RunEvent, read_journal};
use crate::{Result, RunDir, TrainConfig, TrainError};

impl RunDir {
    /// Makes `config` the configuration of an unfinished run, unless it differs in a key that is
    /// not among `allowed`.
    ///
    /// It is compared with the configuration of the run, and with that of the checkpoint unless the
    /// run is known to have had it: so a checkpoint from elsewhere is noticed.
    ///
    /// # Errors
    /// [`TrainError::ConfigChanged`] lists the keys; [`TrainError::Io`].
    pub fn continue_with(
        &self,
        config: &TrainConfig,
        checkpoint: Option<&Checkpoint>,
        allowed: &[String],
    ) -> Result<()> {
        let current = self.config()?;
        let changed = config.differences(&current);
        refuse(&self.config_path(), &changed, allowed)?;
        let mut from = sha256(current.to_toml().as_bytes());
        let mut differences = changed.clone();
        if let Some(checkpoint) = checkpoint {
            from.clone_from(&checkpoint.state().config_sha256);
            if !self.had_config(&from)? {
                differences = config.differences(checkpoint.config());
                refuse(checkpoint.path(), &differences, allowed)?;
            }
        }
        if !differences.is_empty() {
            // Before the new configuration is there: from then on the checkpoint's is an older one.
            let keys = differences.iter().map(Difference::to_string).collect();
            Journal::open(&self.journal_path())?.write(RunEvent::Changed { from, keys })?;
        }
        if changed.is_empty() { Ok(()) } else { self.write_config(config) }
    }

    /// Whether the journal says that the run once continued from a checkpoint of this
    /// configuration.
    fn had_config(&self, sha256: &str) -> Result<bool> {
        let is_it = |event| matches!(event, RunEvent::Changed { from, .. } if from == sha256);
        Ok(read_journal(&self.journal_path())?.into_iter().any(|entry| is_it(entry.event)))
    }
}

impl Checkpoint {
    /// Checks that the rows are those that were trained on, unless a key of `[data]` is among
    /// `allowed`.
    ///
    /// # Errors
    /// [`CheckpointError::Text`].
    pub fn check_text(&self, rows: &Mixture, allowed: &[String]) -> Result<()> {
        let other_allowed = allowed.iter().any(|key| key.starts_with("data."));
        if other_allowed || fingerprint(rows)? == self.state().text_sha256 {
            return Ok(());
        }
        Err(CheckpointError::Text { checkpoint: self.path().to_owned() }.into())
    }
}

/// Rows of a corpus that are read to recognise it: all of a text, a sample of shards.
const SAMPLED_ROWS: usize = 4096;

/// Tells training texts apart: a hash of the sizes of all corpora, and of tokens and document
/// borders of rows evenly spread over each. A document more or less moves all rows behind it, so it
/// shows in the sample.
pub(crate) fn fingerprint(rows: &Mixture) -> Result<String> {
    let mut digest = Digest::default();
    for (corpus, share) in rows.corpora().zip(rows.shares()) {
        digest.update(&share.to_le_bytes());
        for size in [corpus.len() as u64, corpus.sequence_length() as u64, corpus.valid_tokens()] {
            digest.update(&size.to_le_bytes());
        }
        let sampled = corpus.len().min(SAMPLED_ROWS);
        for index in 0..sampled {
            hash_row(corpus, index * corpus.len() / sampled, &mut digest)?;
        }
    }
    Ok(digest.finish())
}

fn hash_row(corpus: &PackedRows, index: usize, digest: &mut Digest) -> Result<()> {
    let row = corpus.row(index)?;
    let ids = row.ids().iter().flat_map(|id| id.to_le_bytes());
    let borders = row.cu_seqlens().iter().flat_map(|&border| (border as u64).to_le_bytes());
    digest.update(&ids.chain(borders).collect::<Vec<u8>>());
    Ok(())
}

fn refuse(place: &Path, differences: &[Difference], allowed: &[String]) -> Result<()> {
    let refused: Vec<Difference> = differences
        .iter()
        .filter(|difference| !allowed.contains(&difference.key))
        .cloned()
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(TrainError::ConfigChanged { place: place.to_owned(), differences: refused })
    }
}
