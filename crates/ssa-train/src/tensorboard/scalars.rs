//! TensorBoard tags of the scalars of a run. The part before the first slash is a group.

use serde_json::Value;
use ssa_model::AttentionMode;

use crate::measurements::Measurements;
use crate::metrics::StepMetrics;

/// The scalars of a step.
pub(super) fn step_scalars(metrics: &StepMetrics) -> Vec<(String, f64)> {
    let mut scalars = Vec::from([
        ("train/loss", metrics.loss),
        ("train/cross_entropy", metrics.cross_entropy),
        ("train/alignment", metrics.alignment),
        ("train/effective_alpha", metrics.effective_alpha),
        ("train/full_streams", metrics.full_stream_fraction),
        ("train/z_loss", metrics.z_loss),
        ("train/skipped_steps", metrics.skipped_steps as f64),
        ("optimizer/learning_rate", metrics.learning_rate),
        ("optimizer/grad_norm", metrics.grad_norm),
        ("speed/tokens_per_second", metrics.tokens_per_second),
        ("speed/tokens_per_step", metrics.tokens as f64),
        ("speed/tflops", metrics.tflops),
        ("speed/epoch", metrics.epoch),
    ])
    .into_iter()
    .map(|(tag, value)| (tag.to_owned(), value))
    .collect::<Vec<_>>();
    scalars.extend(metrics.mfu.map(|mfu| ("speed/mfu".to_owned(), mfu)));
    if let [_, _, ..] = metrics.corpus_epochs[..] {
        let epochs = metrics.corpus_epochs.iter().enumerate();
        scalars.extend(
            epochs.map(|(corpus, &passes)| (format!("data_epochs/corpus_{corpus:02}"), passes)),
        );
    }
    let layers = metrics.alignment_per_layer.iter().enumerate();
    scalars.extend(
        layers.map(|(layer, &value)| (format!("train_alignment/{}", layer_name(layer)), value)),
    );
    scalars
}

/// The scalars measured after a step. Counts, flags and strings describe a measurement and are not
/// plotted.
pub(super) fn measured_scalars(measured: &Measurements) -> Vec<(String, f64)> {
    let mut scalars = Vec::new();
    for (group, value) in measured.groups() {
        collect(TagContext { group, mode: None, layer: None }, "", value, &mut scalars);
    }
    scalars
}

/// The location of a number.
#[derive(Clone, Copy)]
struct TagContext<'a> {
    group: &'a str,
    /// The inference mode: that of an object with a `mode`, or a key that is the name of one.
    mode: Option<AttentionMode>,
    /// The position in a list of `layers`.
    layer: Option<usize>,
}

impl TagContext<'_> {
    fn tag(&self, name: &str) -> String {
        let mode = self.mode.map_or_else(String::new, |mode| format!("/{mode}"));
        match self.layer {
            None => format!("{}/{name}{mode}", self.group),
            Some(layer) => format!("{}_{name}/{}{mode}", self.group, layer_name(layer)),
        }
    }
}

/// Appends the numbers in the value of the key `name`.
fn collect(context: TagContext<'_>, name: &str, value: &Value, scalars: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) if number.is_f64() => {
            scalars.extend(number.as_f64().map(|number| (context.tag(name), number)));
        }
        Value::Object(fields) => {
            let named = fields.get("mode").and_then(Value::as_str).and_then(mode_of);
            for (key, value) in fields {
                let mode = mode_of(key).or(named).or(context.mode);
                collect(TagContext { mode, ..context }, key, value, scalars);
            }
        }
        Value::Array(entries) => {
            for (index, value) in entries.iter().enumerate() {
                let layer = if name == "layers" { Some(index) } else { context.layer };
                collect(TagContext { layer, ..context }, name, value, scalars);
            }
        }
        _ => {}
    }
}

fn mode_of(name: &str) -> Option<AttentionMode> {
    name.parse().ok()
}

/// Layer numbers have leading zeros, so that TensorBoard lists them in order.
fn layer_name(layer: usize) -> String {
    format!("layer_{layer:02}")
}
