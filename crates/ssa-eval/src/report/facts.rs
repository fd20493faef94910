//! The key numbers and sentences of the report.

use ssa_model::AttentionMode;
use ssa_report::Tile;
use ssa_report::number::{abbreviated, counted, duration, grouped};

use crate::{BudgetResult, Perplexity, Summary};

pub(super) fn title(summary: &Summary) -> String {
    format!("{}, {} parameters", summary.method.title(), abbreviated(summary.parameters as f64))
}

pub(super) fn subtitle(summary: &Summary) -> String {
    format!(
        "{} over {} tokens in {}",
        counted(summary.steps, "step"),
        abbreviated(summary.train_tokens as f64),
        duration(summary.train_seconds)
    )
}

/// Bits per byte too few to be called a difference: another seed moves results by more.
const SMALL: f64 = 0.001;

/// The effect of sparse attention at the training budget, as a sentence.
pub(super) fn headline(summary: &Summary) -> Option<String> {
    let evaluation = summary.evaluation.as_ref()?;
    let budget = summary.trained_budget?;
    let sparse = evaluation.at(budget)?;
    let tokens = counted(budget.receptive_field(), "token");
    let Some(full) = evaluation.full() else {
        return Some(format!(
            "Selecting at most {tokens} per query, the model needs {:.4} bits per byte.",
            sparse.bits_per_byte
        ));
    };
    let difference = sparse.bits_per_byte - full.bits_per_byte;
    let verdict = match difference {
        small if small.abs() < SMALL => format!("changes less than {SMALL} bits per byte"),
        less if less < 0.0 => format!("saves {:.4} bits per byte", -less),
        more => format!("costs {more:.4} bits per byte"),
    };
    let mut sentence = format!(
        "Attending to at most {tokens} instead of all {verdict}: {:.4} against {:.4}.",
        sparse.bits_per_byte, full.bits_per_byte
    );
    if let Some(weight) = sparse.attention_sparsity {
        let percent = 100.0 * weight;
        sentence +=
            &format!(" The selected blocks carry {percent:.1} % of the full-attention weight.");
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
            tile("attention sparsity", format!("{weight:.3}"), "with sparse inference")
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
            format!("tokens/s on {}", counted(summary.machine.threads, "thread")),
        )),
    ];
    tiles.into_iter().flatten().collect()
}

/// The extent of the evaluation, as part of a sentence.
pub(super) fn coverage(evaluation: &Perplexity) -> String {
    format!(
        "{} of {} tokens ({}, {} of text)",
        counted(evaluation.rows, "held-out row"),
        grouped(evaluation.sequence_length),
        counted(evaluation.targets, "target"),
        counted(evaluation.bytes, "byte")
    )
}

/// The caption of a results table.
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

/// The provenance of the run: names and values.
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
        (
            "machine",
            format!("{}, {}", summary.machine.cpu, counted(summary.machine.threads, "thread")),
        ),
        ("method", summary.method.to_string()),
        ("parameters", grouped(summary.parameters as u64)),
        ("training tokens", grouped(summary.train_tokens)),
    ]
}

fn tile(name: &'static str, value: impl Into<String>, remark: impl Into<String>) -> Tile {
    Tile { name, value: value.into(), remark: remark.into() }
}
