//! `state.json`: where a run stands.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CheckpointError;
use crate::Result;

/// Where a run stands, in addition to its weights and moments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Version of the layout of the checkpoint.
    pub format: u64,
    /// Version of the program that wrote it.
    pub program: String,
    /// SHA-256 of the checkpoint's `config.toml`.
    pub config_sha256: String,
    /// SHA-256 of the rows trained on.
    pub text_sha256: String,
    /// SHA-256 of the rows measured on; absent if nothing was measured, and in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_sha256: Option<String>,
    /// Optimizer steps done, by which the schedule and the stream draw are indexed.
    pub step: usize,
    /// Optimizer steps that the moments have seen.
    pub optimizer_steps: u64,
    /// Rows read from the loader: its cursor. More than those of the steps done if steps were
    /// skipped.
    pub rows_read: u64,
    /// Steps that were not finite.
    pub bad_steps: BadSteps,
}

/// Counts of steps whose loss or gradient was not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadSteps {
    /// All of them so far. Each was skipped and left the weights unchanged.
    pub skipped: u64,
    /// The latest ones without a good step between them.
    pub in_row: usize,
    /// How often the run was rolled back to a checkpoint.
    pub rollbacks: u64,
}

impl RunState {
    /// Version of the layout of a checkpoint. A change that an older program would misread raises
    /// it.
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
