//! The few numbers and sentences a reader looks for first.

use serde::Serialize;
use ssa_model::{AttentionMode, Method};

use super::scale::thousands;
use crate::{BudgetResult, Perplexity, Summary};

/// A number with its name and a remark.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tile {
    name: &'static str,
    value: String,
    note: String,
}

pub(super) fn title(summary: &Summary) -> String {
    let name = match summary.method {
        Method::Full => "Full attention",
        Method::Moba => "MoBA",
        Method::Nsa => "Native sparse attention",
        Method::Ssa => "Sparse sparse attention",
    };
    format!("{name}, {} parameters", abbreviated(summary.parameters as f64))
}

pub(super) fn subtitle(summary: &Summary) -> String {
    format!(
        "{} steps over {} tokens in {}",
        thousands(&summary.steps.to_string()),
        abbreviated(summary.train_tokens as f64),
        duration(summary.train_seconds)
    )
}

/// What sparse attention costs at the trained budget, as a sentence.
pub(super) fn headline(summary: &Summary) -> Option<String> {
    let evaluation = summary.evaluation.as_ref()?;
    let budget = summary.trained_budget?;
    let sparse = evaluation.at(budget)?;
    let tokens = thousands(&budget.receptive_field().to_string());
    let Some(full) = evaluation.full() else {
        return Some(format!(
            "Selecting at most {tokens} tokens per query, the model needs {:.4} bits per byte.",
            sparse.bits_per_byte
        ));
    };
    let difference = sparse.bits_per_byte - full.bits_per_byte;
    let verdict = if difference >= 0.0 { "costs" } else { "saves" };
    let mut sentence = format!(
        "Attending to at most {tokens} tokens instead of all {verdict} {:.4} bits per byte: {:.4} against {:.4}.",
        difference.abs(),
        sparse.bits_per_byte,
        full.bits_per_byte
    );
    if let Some(weight) = sparse.attention_sparsity {
        let percent = 100.0 * weight;
        sentence += &format!(
            " The selected blocks carry {percent:.1}\u{a0}% of the full-attention weight."
        );
    }
    Some(sentence)
}

pub(super) fn tiles(summary: &Summary) -> Vec<Tile> {
    let evaluation = summary.evaluation.as_ref();
    let full = evaluation.and_then(Perplexity::full);
    let trained = summary.trained_budget;
    let sparse = trained.and_then(|budget| Some((budget, evaluation?.at(budget)?)));
    let bits = |result: &BudgetResult| format!("{:.4}", result.bits_per_byte);
    let analysis = summary.analysis.as_ref();
    let entropy = analysis.and_then(|analysis| analysis.under(AttentionMode::Full));
    let tiles = [
        full.map(|full| tile("full attention", bits(full), "bits per byte")),
        sparse.map(|(budget, sparse)| {
            tile("sparse attention", bits(sparse), format!("bits per byte at {budget}"))
        }),
        sparse.and_then(|(_, sparse)| sparse.attention_sparsity).map(|weight| {
            tile("attention sparsity", format!("{weight:.3}"), "under sparse inference")
        }),
        sparse
            .and_then(|(_, sparse)| sparse.kl_full_sparse)
            .map(|kl| tile("KL, full to sparse", format!("{kl:.4}"), "nats per token")),
        entropy.map(|states| {
            tile(
                "attention entropy",
                format!("{:.2}", states.overall.entropy_bits),
                "bits, full inference",
            )
        }),
        Some(tile(
            "training speed",
            abbreviated(summary.tokens_per_second),
            format!("tokens/s on {} threads", summary.machine.threads),
        )),
    ];
    tiles.into_iter().flatten().collect()
}

/// What was evaluated, as part of a sentence.
pub(super) fn coverage(evaluation: &Perplexity) -> String {
    format!(
        "{} held-out rows of {} tokens ({} targets, {} bytes of text)",
        thousands(&evaluation.rows.to_string()),
        thousands(&evaluation.sequence_length.to_string()),
        thousands(&evaluation.targets.to_string()),
        thousands(&evaluation.bytes.to_string())
    )
}

/// What a table of results is about, in a line.
pub fn caption(summary: &Summary) -> String {
    format!(
        "{} ({}) trained on {}, seed {}; measured on {}, {}",
        summary.run,
        summary.method,
        summary.data.join(", "),
        summary.seed,
        summary.held_out.join(", "),
        summary.device
    )
}

/// Where the run comes from: names and values.
pub(super) fn provenance(summary: &Summary) -> Vec<(&'static str, String)> {
    vec![
        ("run", summary.run.clone()),
        ("command", summary.command.clone()),
        ("training text", summary.data.join(", ")),
        ("held-out text", summary.held_out.join(", ")),
        ("seed", summary.seed.to_string()),
        ("device", summary.device.clone()),
        ("started", summary.started.clone()),
        ("program", format!("ssa {} ({})", summary.version, summary.commit)),
        ("machine", format!("{}, {} threads", summary.machine.cpu, summary.machine.threads)),
        ("method", summary.method.to_string()),
        ("parameters", thousands(&summary.parameters.to_string())),
        ("training tokens", thousands(&summary.train_tokens.to_string())),
    ]
}

fn tile(name: &'static str, value: impl Into<String>, note: impl Into<String>) -> Tile {
    Tile { name, value: value.into(), note: note.into() }
}

/// Three significant digits with k, M, G or T.
fn abbreviated(value: f64) -> String {
    let units = [(1e12, "\u{a0}T"), (1e9, "\u{a0}G"), (1e6, "\u{a0}M"), (1e3, "\u{a0}k")];
    // A value that rounds up to the next unit takes that unit.
    let (factor, unit) =
        units.into_iter().find(|(factor, _)| value >= 0.9995 * factor).unwrap_or((1.0, ""));
    let scaled = value / factor;
    let decimals = match scaled {
        _ if factor == 1.0 && value.fract() == 0.0 => 0,
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{unit}")
}

fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1}\u{a0}s");
    }
    let total = seconds.round() as u64;
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    match hours {
        0 => format!("{minutes}\u{a0}min {seconds}\u{a0}s"),
        _ => format!("{hours}\u{a0}h {minutes}\u{a0}min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (7.0, "7"),
            (999.9, "1.00 k"),
            (1_234.0, "1.23 k"),
            (18_400_000.0, "18.4 M"),
            (1.214e9, "1.21 G"),
        ];
        for (value, text) in cases {
            assert_eq!(abbreviated(value).replace('\u{a0}', " "), text);
        }
    }

    #[test]
    fn durations_read_like_speech() {
        for (seconds, text) in
            [(3.21, "3.2 s"), (59.99, "1 min 0 s"), (125.0, "2 min 5 s"), (7_300.0, "2 h 1 min")]
        {
            assert_eq!(duration(seconds).replace('\u{a0}', " "), text);
        }
    }
}
