//! The journal of an evaluation that can be resumed.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use ssa_eval::harness::Journal;
use ssa_infer::InferenceModel;
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_report::number::counted;

use crate::display::note;

/// What decides the results of every evaluation: the program, the model, the device and the
/// selection rule. An evaluation adds settings of its own.
pub(super) fn settings<const OWN: usize>(
    directory: &Path,
    model: &InferenceModel,
    rule: SelectionRule,
    own: [(&str, Value); OWN],
) -> Result<Value> {
    let common = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("commit", json!(env!("SSA_COMMIT"))),
        ("model", json!(directory)),
        ("weights", json!(weights(directory)?)),
        ("device", json!(model.device().to_string())),
        ("selection", json!(rule.to_string())),
    ];
    let all = common.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value));
    Ok(Value::Object(all.collect::<Map<_, _>>()))
}

/// How many results an earlier process left, which is said if there are any.
pub(super) fn resumed(journal: Option<&Journal>, unit: &str) -> usize {
    let Some(journal) = journal.filter(|journal| journal.resumed() > 0) else { return 0 };
    let count = journal.resumed();
    note(&format!("resuming {}: {} done", journal.path().display(), counted(count, unit)));
    count
}

/// The weights of a checkpoint as far as its files tell without reading them: names, sizes and
/// times.
fn weights(directory: &Path) -> Result<Vec<Value>> {
    let mut weights = Vec::new();
    let files = std::fs::read_dir(directory)
        .with_context(|| format!("{}: cannot be read", directory.display()))?;
    for file in files.filter_map(Result::ok) {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            // A link of the Hub's cache has the file's size and time.
            let metadata = std::fs::metadata(file.path())
                .with_context(|| format!("{}: cannot be read", file.path().display()))?;
            // Some file systems have no times, and clocks can be wrong.
            let modified = metadata.modified().ok();
            let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            weights.push(json!([name, metadata.len(), since.map(|since| since.as_secs())]));
        }
    }
    weights.sort_by_key(ToString::to_string);
    Ok(weights)
}
