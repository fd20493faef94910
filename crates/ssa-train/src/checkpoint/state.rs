//! `state.json`: the progress of a run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CheckpointError;
use crate::Result;

/// The progress of a run, besides its weights and moments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Version of the layout of the checkpoint.
    pub format: u64,
    /// Version of the program that wrote it.
    pub program: String,
    /// SHA-256 of the checkpoint's `config.toml`.
    pub config_sha256: String,
    /// SHA-256 fingerprint of the training rows.
    pub text_sha256: String,
    /// SHA-256 fingerprint of the held-out rows; absent if nothing was measured, and in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_sha256: Option<String>,
    /// Optimizer steps done: the index of the schedule and the stream draw.
    pub step: usize,
    /// Optimizer steps included in the moments.
    pub optimizer_steps: u64,
    /// Rows read from the loader, including those of skipped steps.
    pub rows_read: u64,
    /// Counts of non-finite steps.
    pub bad_steps: BadSteps,
}

/// Counts of steps with a non-finite loss or gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadSteps {
    /// All non-finite steps so far. Each was skipped and left the weights unchanged.
    pub skipped: u64,
    /// Consecutive non-finite steps up to now.
    pub in_row: usize,
    /// Number of rollbacks to a checkpoint.
    pub rollbacks: u64,
}

impl RunState {
    /// Version of the checkpoint format. A change that older versions would misread increments it.
    pub const FORMAT: u64 = 2;

    pub(super) fn parse(text: &str, file: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
            program: String,
        }
        let damaged = |reason: serde_json::Error| CheckpointError::Damaged {
            file: file.to_owned(),
            problem: reason.to_string(),
            checkpoint: file.parent().unwrap_or(file).to_owned(),
            older: None,
        };
        let Version { format, program } = serde_json::from_str(text).map_err(damaged)?;
        if !(1..=Self::FORMAT).contains(&format) {
            let file = file.to_owned();
            let newest = Self::FORMAT;
            return Err(CheckpointError::Format { file, found: format, newest, program }.into());
        }
        Ok(serde_json::from_str(text).map_err(damaged)?)
    }
}
