//! What results were made with.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use ssa_data::Tokenizer;
use ssa_infer::InferenceModel;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::Method;

use crate::commands::command_line;

/// The first fields of a JSON result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Provenance {
    version: &'static str,
    commit: &'static str,
    command: String,
    date: String,
    pub(super) model: String,
    method: Method,
    device: String,
    /// SHA-256 of the tokenizer; none for bytes.
    tokenizer: Option<String>,
    selection: String,
}

impl Provenance {
    /// Of results that are made now.
    pub(super) fn new(
        directory: &Path,
        model: &InferenceModel,
        tokenizer: &Tokenizer,
        rule: SelectionRule,
    ) -> Result<Self> {
        let now =
            Timestamp::try_from(SystemTime::now()).context("the clock has an invalid year")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("SSA_COMMIT"),
            command: command_line(),
            date: now.to_string(),
            model: directory.display().to_string(),
            method: model.config().attention_method,
            device: model.device().to_string(),
            tokenizer: tokenizer.sha256().map(str::to_owned),
            selection: rule.to_string(),
        })
    }

    /// The model and the device.
    pub(super) fn caption(&self) -> String {
        format!("{} ({}), {}", self.model, self.method, self.device)
    }

    /// Names with values, for a page.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("model", self.model.clone()),
            ("method", self.method.to_string()),
            ("device", self.device.clone()),
            ("block selection", self.selection.clone()),
            ("command", self.command.clone()),
            ("version", format!("{} ({})", self.version, self.commit)),
            ("date", self.date.clone()),
        ]
    }
}
