//! `ssa eval context-length`.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use ssa_data::read_documents;
use ssa_eval::harness::{Answer, Journal};
use ssa_eval::sliding::{
    RopeMethod, RopeSettings, SlidingFacts, SlidingPart, SlidingPerplexity, SlidingRun,
    SlidingText, WindowSettings, render as render_page, sliding_table,
};
use ssa_model::ModelConfig;
use ssa_report::number::{counted, grouped};

use super::provenance::Provenance;
use super::{attentions, journal};
use crate::args::{ContextLengthArgs, DeviceChoice};
use crate::commands::model::{self, LoadedModel};
use crate::commands::{held_out, memory};
use crate::display::{AmountProgress, Display, note, print, print_json, render};
use crate::files::{check_writable, write_whole};

/// The content of `--output` and `--json`.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    data: &'a str,
    seconds: f64,
    #[serde(flatten)]
    perplexity: &'a SlidingPerplexity,
}

pub(super) fn run(args: &ContextLengthArgs, device: DeviceChoice) -> Result<()> {
    for file in args.output.iter().chain(&args.html) {
        check_writable(file, args.overwrite)?;
    }
    let LoadedModel { model, directory } = model::load_for_inference(&args.model, device)?;
    let config = model.config().clone();
    let modes = attentions::modes(&args.attentions, &config)?;
    let tokenizer = held_out::tokenizer_of(&directory, &config)?;
    let names: Vec<String> = args.data.iter().map(|path| path.display().to_string()).collect();
    let (names, documents) = (names.join(", "), read_documents(&args.data)?);
    let text = SlidingText::new(&documents, &tokenizer, window_settings(args))?;
    drop(documents);
    describe(&text, args, &config);
    let inference = model::inference(&model)?;
    drop(model);
    let original_length = args.original_length.map(|length| length.0);
    let mut ropes: Vec<RopeMethod> = Vec::new();
    for &rope in &args.rope {
        if !ropes.contains(&rope) {
            ropes.push(rope);
        }
    }
    let run = SlidingRun {
        model: &inference,
        text: &text,
        modes: &modes,
        ropes: &ropes,
        rope_settings: RopeSettings {
            original_length: original_length.unwrap_or(config.max_position_embeddings),
            factor: args.rope_factor,
        },
        rule: args.attentions.selection,
        batch_tokens: args.batch_tokens,
    };
    let parts = run.parts()?;
    memory::require(inference.device(), run.cache_bytes(&parts), "a window", |_| {
        "pass shorter --lengths, or a smaller --batch-tokens".to_owned()
    })?;
    let provenance =
        Provenance::new(&directory, &inference, &tokenizer, args.attentions.selection)?;
    let mut journal = match &args.output {
        Some(output) => {
            let own = [("text", json!(text.sha256())), ("parts", json!(format!("{parts:?}")))];
            let settings = journal::settings(&directory, &inference, run.rule, own)?;
            Some(Journal::open(output, settings, args.overwrite)?)
        }
        None => None,
    };
    let start = Instant::now();
    let sums = score(&run, &parts, journal.as_mut())?;
    let perplexity = run.results(&sums)?;
    let seconds = start.elapsed().as_secs_f64();
    let output = Output { provenance: &provenance, data: &names, seconds, perplexity: &perplexity };
    if let Some(path) = &args.html {
        let facts = SlidingFacts {
            model: provenance.model.clone(),
            data: names.clone(),
            provenance: provenance.facts(),
        };
        write_whole(path, render_page(&perplexity, facts)?.as_bytes())?;
    }
    if let Some(path) = &args.output {
        ssa_files::write_json(path, &output)?;
        journal.map(Journal::remove).transpose()?;
    }
    if args.json {
        return print_json(&output);
    }
    print(&render(&sliding_table(&perplexity, |result| format!("{:.3}", result.perplexity))))?;
    print(&format!(
        "perplexity of {} on {names}, {}, {seconds:.1} s",
        provenance.caption(),
        counted(perplexity.scored_tokens, "scored token")
    ))
}

/// Each length once.
fn window_settings(args: &ContextLengthArgs) -> WindowSettings {
    let mut lengths: Vec<usize> = args.lengths.iter().map(|length| length.0).collect();
    lengths.sort_unstable();
    lengths.dedup();
    WindowSettings { lengths, stride: args.stride, most: args.windows }
}

/// Says what is scored, and what is unusual about it.
fn describe(text: &SlidingText, args: &ContextLengthArgs, config: &ModelConfig) {
    let documents = counted(text.documents(), "document");
    let windows = counted(text.windows(), "window");
    note(&format!("scoring {windows} of each length, from {documents}"));
    if text.short_documents() > 0 {
        let short = counted(text.short_documents(), "document");
        note(&format!("left out: {short} shorter than the longest window"));
    }
    let context = config.max_position_embeddings;
    let lengths = window_settings(args).lengths.into_iter();
    let longer: Vec<String> = lengths.filter(|&length| length > context).map(grouped).collect();
    if !longer.is_empty() {
        note(&format!(
            "extrapolating: the model's context has {}, windows have {}",
            counted(context, "token"),
            longer.join(", ")
        ));
    }
}

/// The log-likelihood of each part. Scores of an earlier process are taken from the journal.
fn score(
    run: &SlidingRun<'_>,
    parts: &[SlidingPart],
    mut journal: Option<&mut Journal>,
) -> Result<Vec<(SlidingPart, f64)>> {
    let windows = run.text.windows();
    // A window costs time by its length.
    let total: usize = parts.iter().map(|part| part.length * windows).sum();
    journal::resumed(journal.as_deref(), "window");
    let mut progress = AmountProgress::new(Display::choose(false), "evaluating");
    let (mut sums, mut finished, mut earlier) = (Vec::new(), 0, 0);
    for (index, part) in parts.iter().enumerate() {
        let done = journal.as_mut().map_or_else(Vec::new, |journal| journal.take(index));
        let mut scores: Vec<f64> = done.iter().flatten().map(Answer::log_likelihood).collect();
        let skipped = scores.len();
        earlier += skipped * part.length;
        let counts = || vec![format!("windows of {}", grouped(part.length)), part.mode.to_string()];
        run.run(part, skipped, &mut |score| {
            if let Some(journal) = &mut journal {
                journal.add(index, &[Answer::Rolling(score)])?;
            }
            scores.push(score);
            let done = finished + scores.len() * part.length;
            progress.set(earlier as u64, done as u64, total as u64, counts);
            Ok(())
        })?;
        finished += windows * part.length;
        sums.push((part.clone(), scores.iter().sum()));
    }
    progress.finish();
    Ok(sums)
}
