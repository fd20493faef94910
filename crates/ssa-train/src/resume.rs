//! Whether an unfinished run may be continued as it is asked to be.

use std::path::Path;

use ssa_data::PackedRows;

use crate::checkpoint::{Checkpoint, CheckpointError, Digest, sha256};
use crate::config::Difference;
use crate::journal::{Journal, RunEvent, read_journal};
use crate::{Result, RunDir, TrainConfig, TrainError};

impl RunDir {
    /// Makes `config` the configuration of an unfinished run, unless it differs in a key that is not among `allowed`.
    ///
    /// It is compared with the configuration of the run, and with that of the checkpoint unless the run is known to
    /// have had it: so a checkpoint from elsewhere is noticed.
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
        refuse(&self.path().join("config.toml"), &changed, allowed)?;
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

    /// Whether the journal says that the run once continued from a checkpoint of this configuration.
    fn had_config(&self, sha256: &str) -> Result<bool> {
        let is_it = |event| matches!(event, RunEvent::Changed { from, .. } if from == sha256);
        Ok(read_journal(&self.journal_path())?.into_iter().any(|entry| is_it(entry.event)))
    }
}

impl Checkpoint {
    /// Checks that the rows are those that were trained on, unless a key of `[data]` is among `allowed`.
    ///
    /// # Errors
    /// [`CheckpointError::Text`].
    pub fn check_text(&self, rows: &PackedRows, allowed: &[String]) -> Result<()> {
        let other_allowed = allowed.iter().any(|key| key.starts_with("data."));
        if other_allowed || fingerprint(rows) == self.state().text_sha256 {
            return Ok(());
        }
        Err(CheckpointError::Text { checkpoint: self.path().to_owned() }.into())
    }
}

/// Tells rows apart: a hash of all their tokens and document borders.
pub(crate) fn fingerprint(rows: &PackedRows) -> String {
    let mut digest = Digest::default();
    let mut bytes = Vec::new();
    for row in rows.rows() {
        bytes.clear();
        bytes.extend(row.ids().iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend(row.cu_seqlens().iter().flat_map(|&border| (border as u64).to_le_bytes()));
        bytes.extend((row.valid_tokens() as u64).to_le_bytes());
        digest.update(&bytes);
    }
    digest.finish()
}

fn refuse(place: &Path, differences: &[Difference], allowed: &[String]) -> Result<()> {
    let refused: Vec<Difference> =
        differences.iter().filter(|difference| !allowed.contains(&difference.key)).cloned().collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(TrainError::ConfigChanged { place: place.to_owned(), differences: refused })
    }
}
