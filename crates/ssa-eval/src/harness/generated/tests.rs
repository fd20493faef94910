//! Generated documents: contract, sizes, determinism.

use ssa_data::Tokenizer;

use super::super::prepared::PrepareSettings;
use super::super::request::{PreparedDocument, Request};
use super::super::rows::RowsOf;
use super::super::target::Target;
use super::super::task::{Task, built_in_tasks};
use super::*;

const BOOK: &str = "It was a bright day in April. The clocks were striking! \"Who is it?\" Nobody \
                    answered. A door was closed with some care and the wind went on.";

fn grid(lengths: &[usize], depths: &[usize], samples: usize) -> GridSettings {
    GridSettings { lengths: lengths.to_vec(), depths: depths.to_vec(), samples, seed: 7 }
}

fn prepare(
    name: &str,
    grid: GridSettings,
    book: Option<&std::path::Path>,
    context_length: usize,
) -> Result<super::super::PreparedTask, String> {
    let rows: Vec<RowsOf> =
        book.iter().map(|path| format!("{name}={}", path.display()).parse().unwrap()).collect();
    let settings = PrepareSettings {
        rows: &rows,
        num_fewshot: Some(3),
        limit: None,
        seed: 0,
        context_length,
        grid,
    };
    let task = Task::find(name).unwrap();
    task.prepare(&settings, &Tokenizer::Bytes).map_err(|error| error.to_string())
}

fn book() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".txt").tempfile().unwrap();
    std::fs::write(file.path(), BOOK.repeat(40)).unwrap();
    file
}

fn context(document: &PreparedDocument) -> &str {
    match &document.requests[0] {
        Request::Continuation { context, .. } | Request::Generation { context, .. } => context,
        Request::Rolling { text, .. } => text,
    }
}

/// Tokens of the largest request, the generated text included.
fn tokens(document: &PreparedDocument, generated: usize) -> usize {
    let request = |request: &Request| match request {
        Request::Continuation { context, continuation, .. } => context.len() + continuation.len(),
        Request::Generation { tokens, .. } => tokens.len() + generated,
        Request::Rolling { .. } => 0,
    };
    document.requests.iter().map(request).max().unwrap()
}

/// The right texts: targets of generation, or the right candidate.
fn answers(document: &PreparedDocument) -> Vec<String> {
    match &document.target {
        Target::Texts(texts) => texts.clone(),
        Target::Choices { right, .. } => match &document.requests[right[0]] {
            Request::Continuation { continuation, .. } => {
                continuation.split_whitespace().map(str::to_owned).collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn generated_tasks() -> impl Iterator<Item = &'static str> {
    built_in_tasks().filter(|name| Task::find(name).unwrap().file.generator.is_some())
}

#[test]
fn documents_fill_their_length_and_hold_their_answer() {
    let book = book();
    assert_eq!(generated_tasks().count(), 10);
    for name in generated_tasks() {
        let reads = Task::find(name).unwrap().file.generator.unwrap().reads_text();
        for text in [None, Some(book.path())].into_iter().filter(|text| reads || text.is_none()) {
            let lengths = [1500, 3000];
            let task = prepare(name, grid(&lengths, &[0, 100], 2), text, 4096).unwrap();
            let again = prepare(name, grid(&lengths, &[0, 100], 2), text, 4096).unwrap();
            assert_eq!(task.sha256(), again.sha256(), "{name}");
            let depths = if name.starts_with("vt") { 1 } else { 2 };
            assert_eq!((task.documents(), task.num_fewshot()), (2 * 2 * depths, 0), "{name}");
            assert_eq!(task.truncation().requests, 0);
            for document in &task.documents {
                let (cell, size) =
                    (document.cell.unwrap(), tokens(document, task.generation.max_tokens));
                assert!(size <= cell.length, "{name}: {size} of {cell:?}");
                assert!(size + 120 > cell.length, "{name}: {size} of {cell:?}");
                for answer in answers(document) {
                    assert!(context(document).contains(&answer), "{name}: {answer}");
                }
            }
            let texts = task.generated().unwrap().haystack.len();
            assert_eq!(texts, usize::from(text.is_some()), "{name}");
        }
    }
}

#[test]
fn depth_is_the_place_of_the_answer() {
    let book = book();
    for name in ["niah_single", "niah_multikey", "niah_multikey_needles_choice", "kv_retrieval"] {
        let reads = Task::find(name).unwrap().file.generator.unwrap().reads_text();
        let text = reads.then(|| book.path());
        let task = prepare(name, grid(&[3000], &[0, 50, 100], 1), text, 4096).unwrap();
        let places: Vec<f64> = task
            .documents
            .iter()
            .map(|document| {
                let context = context(document);
                let [from, to] = [200.0, context.len() as f64 - 330.0];
                let place = context.find(&answers(document)[0]).unwrap() as f64;
                (place - from) / (to - from)
            })
            .collect();
        assert!(places[0] < 0.1 && places[2] > 0.9, "{name}: {places:?}");
        assert!((0.4..0.6).contains(&places[1]), "{name}: {places:?}");
    }
}

#[test]
fn samples_differ_by_seed_and_are_alike_over_the_grid() {
    let of = |seed: u64, lengths: &[usize]| {
        let grid = GridSettings { seed, ..grid(lengths, &[50], 2) };
        let task = prepare("niah_multikey_choice", grid, None, 8192).unwrap();
        task.documents.iter().map(answers).collect::<Vec<_>>()
    };
    let one = of(1, &[1500]);
    assert_ne!(one, of(2, &[1500]));
    assert_ne!(one[0], one[1]);
    let two = of(1, &[1500, 3000]);
    assert_eq!([&two[0], &two[2]], [&one[0], &one[1]]);
    assert_eq!(two[0], two[1], "the same needle at another length");
}

#[test]
fn prompts_are_those_of_their_sources() {
    let prompt = |name: &str| {
        let task = prepare(name, grid(&[1200], &[50], 1), None, 4096).unwrap();
        (context(&task.documents[0]).to_owned(), answers(&task.documents[0]))
    };
    let (text, _) = prompt("niah_single");
    assert!(text.starts_with(
        "A special magic number is hidden within the following text. Make sure to memorize it. I \
         will quiz you about the number afterwards.\nThe grass is green. The sky is blue."
    ));
    let needle = text.lines().find(|line| line.starts_with("One of the special")).unwrap();
    let (key, value) = needle
        .strip_prefix("One of the special magic numbers for ")
        .and_then(|rest| rest.strip_suffix('.')?.split_once(" is: "))
        .unwrap();
    assert!(value.len() == 7 && value.parse::<u32>().is_ok());
    assert!(text.ends_with(&format!(
        "There and back again.\nWhat is the special magic number for {key} mentioned in the \
         provided text? The special magic number for {key} mentioned in the provided text is"
    )));
    let (text, variables) = prompt("vt");
    let value = text.split(&format!("VAR {} = ", variables[0])).nth(1).unwrap();
    let value = &value[..5];
    let mut place = 0;
    for pair in variables.windows(2) {
        let statement = format!("VAR {} = VAR {}\n", pair[1], pair[0]);
        let found = text.find(&statement).unwrap();
        assert!(found > place, "the chain is in order");
        place = found;
    }
    assert!(text.ends_with(&format!("5 variables are assgined the value {value}, they are:")));
    let (text, values) = prompt("kv_retrieval");
    let json = text.split("JSON data:\n").nth(1).unwrap().split("\n\nKey: \"").next().unwrap();
    let pairs: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    let key = text.split("Key: \"").nth(1).unwrap().strip_suffix("\"\nCorresponding value:");
    assert_eq!(pairs[key.unwrap()], values[0]);
    assert!(json.contains("\",\n \"") && pairs.len() > 3);
}

#[test]
fn what_is_too_long_or_too_short_is_said() {
    let error = prepare("niah_single", grid(&[100], &[0], 1), None, 4096).unwrap_err();
    assert!(error.contains("a document of 100 tokens has no room"), "{error}");
    assert!(error.contains("hint: pass --lengths"), "{error}");
    let task = prepare("niah_single", grid(&[1500, 3000], &[0], 2), None, 2000).unwrap();
    assert_eq!(task.truncation().requests, 2, "the longer ones lose their beginning");
    assert!(task.truncation().tokens > 900);
    let truncated: Vec<bool> = task.documents.iter().map(|document| document.truncated).collect();
    assert_eq!(truncated, [false, true, false, true]);
    let book = book();
    let task = prepare("vt", grid(&[9000], &[], 1), Some(book.path()), 10_000).unwrap();
    assert_eq!(task.generated().unwrap().repeated, 1, "the text is short");
    let error = prepare("kv_retrieval", grid(&[1000], &[], 1), Some(book.path()), 4096);
    assert!(error.unwrap_err().contains("--data kv_retrieval: the task reads no text"));
    std::fs::write(book.path(), " \n").unwrap();
    let error = prepare("vt", grid(&[1000], &[], 1), Some(book.path()), 4096).unwrap_err();
    assert!(error.contains("there is no text"), "{error}");
    let error = prepare("vt", grid(&[], &[], 1), None, 4096).unwrap();
    assert_eq!(error.documents[0].cell.unwrap().length, 4096, "the model's context by default");
}
