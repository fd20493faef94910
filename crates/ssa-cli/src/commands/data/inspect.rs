//! `ssa data inspect`.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use ssa_data::{
    Corpus, Manifest, ManifestCheck, PackOptions, Remainder, TokenCounts, TokenSource, Tokenizer,
    corpus_tokenizer, count_tokens, load_tokenizer, pack_documents, verify,
};
use ssa_report::number::{counted, grouped};
use ssa_report::{Column, NONE, Row, Table};

use crate::args::InspectArgs;
use crate::display::{AmountProgress, Display, print, print_json, render};

/// Number of most frequent ids to list.
const MOST_FREQUENT: usize = 10;
/// Number of possible ids of a corpus without a tokenizer.
const ANY_VOCABULARY: usize = 1 << 31;

/// The output of `--json`.
#[derive(Serialize)]
struct Output {
    corpus: String,
    /// The extent of the check.
    check: Check,
    shards: usize,
    documents: usize,
    tokens: u64,
    text_bytes: Option<u64>,
    statistics: Option<Counts>,
    packing: &'static str,
    utilization: f64,
    rows: Vec<Vec<Piece>>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    NoManifest,
    Sizes,
    Checksums,
}

#[derive(Serialize)]
struct Counts {
    quartiles: [usize; 5],
    tokens_by_length: Vec<u64>,
    distinct_tokens: usize,
    most_frequent: Vec<FrequentToken>,
}

#[derive(Serialize)]
struct FrequentToken {
    id: u32,
    token: Option<String>,
    count: u64,
}

/// An attention document of a row.
#[derive(Serialize)]
struct Piece {
    tokens: [usize; 2],
    /// `None` for a corpus without a tokenizer.
    text: Option<String>,
    ids: Vec<u32>,
}

pub(super) fn run(args: &InspectArgs) -> Result<()> {
    let manifest = Manifest::read(&args.corpus)?;
    let corpus = Corpus::open(&args.corpus)?;
    let check = check(&corpus, manifest.as_ref(), args.quick)?;
    let tokenizer = match &args.tokenizer {
        Some(path) => Some(load_tokenizer(path, None)?),
        None => corpus_tokenizer(&args.corpus)?,
    };
    let statistics = if args.quick { None } else { Some(count(&corpus, tokenizer.as_ref())?) };
    let (shards, documents, tokens) = (corpus.shards().len(), corpus.documents(), corpus.tokens());
    let (utilization, rows) = rows(corpus, tokenizer.as_ref(), args)?;
    let output = Output {
        corpus: args.corpus.display().to_string(),
        check,
        shards,
        documents,
        tokens,
        text_bytes: manifest.map(|manifest| manifest.text_bytes()),
        statistics,
        packing: args.packing.name(),
        utilization,
        rows,
    };
    if args.json { print_json(&output) } else { show(&output) }
}

fn check(corpus: &Corpus, manifest: Option<&Manifest>, quick: bool) -> Result<Check> {
    match manifest {
        None => Ok(Check::NoManifest),
        Some(manifest) if quick => {
            manifest.check(corpus.path(), ManifestCheck::Indices)?;
            Ok(Check::Sizes)
        }
        Some(manifest) => {
            verify(corpus, manifest)?;
            Ok(Check::Checksums)
        }
    }
}

fn count(corpus: &Corpus, tokenizer: Option<&Tokenizer>) -> Result<Counts> {
    let mut progress = AmountProgress::new(Display::choose(false), "counting");
    let counts = count_tokens(corpus, MOST_FREQUENT, &mut |done, all| {
        progress.set(0, done as u64, all as u64, || vec![counted(done, "document")]);
    })?;
    progress.finish();
    let TokenCounts { quartiles, tokens_by_length, distinct_tokens, most_frequent, .. } = counts;
    let named = most_frequent.into_iter().map(|(id, count)| {
        let token = tokenizer.map(|tokenizer| tokenizer.decode(&[id])).transpose()?;
        Ok(FrequentToken { id, token, count })
    });
    let most_frequent = named.collect::<Result<_>>()?;
    Ok(Counts { quartiles, tokens_by_length, distinct_tokens, most_frequent })
}

/// The fraction of the rows' tokens that are not padding, and the first rows.
fn rows(
    corpus: Corpus,
    tokenizer: Option<&Tokenizer>,
    args: &InspectArgs,
) -> Result<(f64, Vec<Vec<Piece>>)> {
    let source = match tokenizer {
        Some(tokenizer) => TokenSource::shards(corpus, tokenizer.vocab_size(), tokenizer.eos()),
        None => TokenSource::shards(corpus, ANY_VOCABULARY, 0),
    };
    let &InspectArgs { sequence_length, packing, seed, .. } = args;
    let all = source.all_documents()?;
    let options = PackOptions { sequence_length, packing, seed, remainder: Remainder::Pad };
    let packed = pack_documents(Arc::new(source), &all, &options)?;
    let count = args.rows.min(packed.len());
    let rows = (0..count).map(|row| {
        let row = packed.row(row)?;
        let pieces = row.cu_seqlens().windows(2).filter(|border| border[1] <= row.valid_tokens());
        pieces
            .map(|border| {
                let ids = &row.ids()[border[0]..border[1]];
                let text = tokenizer.map(|tokenizer| tokenizer.decode(ids)).transpose()?;
                Ok(Piece { tokens: [border[0], border[1]], text, ids: ids.to_vec() })
            })
            .collect::<Result<Vec<_>>>()
    });
    Ok((packed.utilization(), rows.collect::<Result<_>>()?))
}

fn show(output: &Output) -> Result<()> {
    print(match output.check {
        Check::Checksums => {
            "all files match the manifest: checksums, vocabulary, ends of documents"
        }
        Check::Sizes => "sizes and indices match the manifest",
        Check::NoManifest => "no manifest to check the files against",
    })?;
    let text = output.text_bytes.map(|bytes| {
        let each = bytes as f64 / output.tokens as f64;
        format!(", {} of text ({each:.2} per token)", counted(bytes, "byte"))
    });
    print(&format!(
        "{}, {}, {}{}",
        counted(output.shards, "shard"),
        counted(output.documents, "document"),
        counted(output.tokens, "token"),
        text.unwrap_or_default()
    ))?;
    if let Some(statistics) = &output.statistics {
        let quartiles = statistics.quartiles.map(|tokens| grouped(tokens as u64));
        let [shortest, first, median, third, longest] = quartiles;
        print(&format!(
            "tokens per document: {shortest} to {longest}, quartiles {first}, {median}, {third}"
        ))?;
        print(&render(&by_length(&statistics.tokens_by_length, output.tokens)))?;
        let distinct = counted(statistics.distinct_tokens, "distinct token");
        print(&format!("{distinct}; the most frequent:"))?;
        print(&render(&most_frequent(&statistics.most_frequent, output.tokens)))?;
    }
    print(&format!("row utilization ({}): {:.2} %", output.packing, 100.0 * output.utilization))?;
    output.rows.iter().enumerate().try_for_each(|(number, row)| show_row(number, row))
}

fn show_row(number: usize, row: &[Piece]) -> Result<()> {
    print(&format!("\nrow {number}"))?;
    for Piece { tokens: [start, end], text, ids } in row {
        let content = text.as_ref().map_or_else(|| format!("{ids:?}"), |text| format!("{text:?}"));
        print(&format!("  tokens {start}..{end}: {content}"))?;
    }
    Ok(())
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / whole as f64)
}

/// The share of the corpus in long documents, by powers of four.
fn by_length(tokens_by_length: &[u64], tokens: u64) -> Table {
    let rows = (0..tokens_by_length.len()).step_by(2).map(|power| {
        let cells = vec![
            format!("{} or more", counted(1_u64 << power, "token")),
            share(tokens_by_length[power], tokens),
        ];
        Row::new(cells)
    });
    Table::new(vec![Column::text("in documents of"), Column::number("tokens")], rows)
}

fn most_frequent(frequent: &[FrequentToken], tokens: u64) -> Table {
    let rows = frequent.iter().map(|FrequentToken { id, token, count }| {
        let name = token.as_ref().map_or_else(|| NONE.to_owned(), |token| format!("{token:?}"));
        Row::new(vec![name, id.to_string(), share(*count, tokens)])
    });
    let columns =
        vec![Column::text("token"), Column::number("id").rank(1), Column::number("share")];
    Table::new(columns, rows)
}
