//! Checks that a resumed run reads the same text as before.

use ssa_data::{Mixture, PackedRows};

use super::{Checkpoint, CheckpointError};
use crate::Result;
use crate::fingerprint::{fingerprint, held_out_fingerprint};

impl Checkpoint {
    /// Checks that the rows are the previous training rows, unless `allowed` contains a key of
    /// `[data]`.
    ///
    /// # Errors
    /// [`CheckpointError::Text`].
    pub fn check_text(&self, rows: &Mixture, allowed: &[String]) -> Result<()> {
        self.check(self.state.text_sha256 == fingerprint(rows)?, "training", "paths", allowed)
    }

    /// Checks that the held-out rows are the previous ones, if those are recorded, unless `allowed`
    /// contains a key of `[data]` or `[evaluation]`.
    ///
    /// # Errors
    /// [`CheckpointError::Text`].
    pub fn check_held_out<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a PackedRows>,
        allowed: &[String],
    ) -> Result<()> {
        let Some(before) = &self.state.held_out_sha256 else { return Ok(()) };
        self.check(*before == held_out_fingerprint(rows)?, "held-out", "valid_paths", allowed)
    }

    fn check(
        &self,
        is_same: bool,
        which: &'static str,
        key: &'static str,
        allowed: &[String],
    ) -> Result<()> {
        let may_differ =
            allowed.iter().any(|key| key.starts_with("data.") || key.starts_with("evaluation."));
        if is_same || may_differ {
            return Ok(());
        }
        Err(CheckpointError::Text { checkpoint: self.path.clone(), which, key }.into())
    }
}
