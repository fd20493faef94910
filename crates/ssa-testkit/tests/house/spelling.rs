//! American spelling.

use crate::files;

/// Paths that may contain British spelling.
const ALLOWED: [&str; 3] = [
    // The alias `analyse`.
    "crates/ssa-cli/src/args/hints.rs",
    "crates/ssa-cli/src/args/mod.rs",
    // The British words that this test looks for.
    "crates/ssa-testkit/tests/house/spelling.rs",
];

/// Words with `-our`, `-re`, doubled consonants and the like, and their American spelling. They
/// also match at the beginning of a longer word.
const WORDS: [(&str, &str); 25] = [
    ("artefact", "artifact"),
    ("behaviour", "behavior"),
    ("cancelled", "canceled"),
    ("cancelling", "canceling"),
    ("catalogue", "catalog"),
    ("centre", "center"),
    ("colour", "color"),
    ("defence", "defense"),
    ("favour", "favor"),
    ("grey", "gray"),
    ("honour", "honor"),
    ("labelled", "labeled"),
    ("labelling", "labeling"),
    ("learnt", "learned"),
    ("licence", "license"),
    ("modelled", "modeled"),
    ("modelling", "modeling"),
    ("neighbour", "neighbor"),
    ("practise", "practice"),
    ("programme ", "program"),
    ("rigour", "rigor"),
    ("spelt", "spelled"),
    ("travelled", "traveled"),
    ("unlabelled", "unlabeled"),
    ("whilst", "while"),
];

/// Stems of words in `-ise` and `-isation` that have a `z` in American spelling.
const STEMS: [&str; 45] = [
    "amort",
    "author",
    "binar",
    "capital",
    "categor",
    "character",
    "custom",
    "discret",
    "equal",
    "factor",
    "final",
    "formal",
    "general",
    "global",
    "initial",
    "linear",
    "local",
    "material",
    "maxim",
    "memor",
    "minim",
    "modular",
    "neutral",
    "normal",
    "optim",
    "organ",
    "parallel",
    "penal",
    "priorit",
    "quant",
    "random",
    "raster",
    "real",
    "recogn",
    "regular",
    "serial",
    "special",
    "stabil",
    "standard",
    "summar",
    "synchron",
    "token",
    "util",
    "vector",
    "visual",
];

const ENDINGS: [&str; 12] =
    ["e", "ed", "er", "ers", "es", "ing", "ation", "ations", "able", "ational", "edly", "ingly"];

/// The American spelling of a British word in lower case.
fn american(word: &str) -> Option<String> {
    if let Some((british, ours)) = WORDS.iter().find(|(british, _)| word.starts_with(british)) {
        return Some(word.replace(british, ours));
    }
    if ["analyse", "analysed", "analyser", "analysing"].contains(&word) {
        return Some(word.replace("analys", "analyz"));
    }
    STEMS.iter().find_map(|stem| {
        let at = word.find(&format!("{stem}is"))? + stem.len();
        let ending = &word[at + 2..];
        ENDINGS.contains(&ending).then(|| format!("{}iz{ending}", &word[..at]))
    })
}

#[test]
fn words_are_spelled_the_american_way() {
    let mut findings = Vec::new();
    for file in files::all() {
        for (number, line) in (1..).zip(file.text.lines()) {
            for word in line.split(|character: char| !character.is_alphabetic()) {
                if let Some(ours) = american(&word.to_lowercase()) {
                    findings.push((file.name.clone(), format!("{number}: `{word}`, write {ours}")));
                }
            }
        }
    }
    files::check("British spelling", &findings, &ALLOWED);
}

#[test]
fn british_words_are_found() {
    for (british, ours) in [
        ("optimiser", "optimizer"),
        ("behaviours", "behaviors"),
        ("tokenisation", "tokenization"),
        ("denormalised", "denormalized"),
        ("analyse", "analyze"),
        ("neighbouring", "neighboring"),
    ] {
        assert_eq!(american(british).as_deref(), Some(ours));
    }
    for word in ["optimizer", "parallelism", "analyses", "emphasis", "organism", "precise", "noise"]
    {
        assert_eq!(american(word), None, "{word}");
    }
}
