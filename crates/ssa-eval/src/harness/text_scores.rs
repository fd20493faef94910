//! Scores of generated texts: the metrics of LongBench.
//!
//! With `n(x)` the answer `x` in lower case, without ASCII punctuation and without the words a, an
//! and the, in words divided by white space:
//!
//! ```text
//! F1       2 P R / (P + R), P and R the common words of n(text) and n(target) over the words of
//!          each, counted as often as they occur; 0 without a common word
//! ROUGE-L  2 P R / (P + R + 1e-8), P = U / |W(text)|, R = U / |W(target)|: W the set of different
//!          words of all sentences, U the size of the union, over all pairs of sentences, of the
//!          set of words of a longest common subsequence
//! ```
//!
//! Sentences of ROUGE-L end at periods; nothing else is normalized. Among subsequences of the same
//! length the one of the original algorithm is taken, because their words can differ.
//!
//! **Source.** `qa_f1_score` and `rouge_score` of LongBench's `metrics.py` (arXiv 2308.14508), with
//! version 1.0.1 of the Python package rouge. There, texts of about a thousand words exceed the
//! recursion limit of Python and score 0; here they score what the formula says.

use std::collections::{BTreeMap, BTreeSet};

use super::preprocess::is_space;

/// The F1 of the words of an answer.
pub(super) fn f1(text: &str, target: &str) -> f64 {
    let [text, target] = [normalized(text), normalized(target)];
    let [text, target] = [&text, &target].map(|it| words(it).collect::<Vec<_>>());
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    target.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let mut common = 0;
    for word in &text {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let [precision, recall] = [text.len(), target.len()].map(|len| f64::from(common) / len as f64);
    2.0 * precision * recall / (precision + recall)
}

/// An answer in lower case, without punctuation and articles, with single spaces.
pub(super) fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept = lower.chars().filter(|c| !c.is_ascii_punctuation());
    let mut out = String::with_capacity(lower.len());
    let mut word = String::new();
    let end = |word: &mut String, out: &mut String| {
        out.push_str(if ["a", "an", "the"].contains(&word.as_str()) { " " } else { word });
        word.clear();
    };
    for c in kept {
        if c.is_alphanumeric() {
            word.push(c);
        } else {
            end(&mut word, &mut out);
            out.push(c);
        }
    }
    end(&mut word, &mut out);
    words(&out).collect::<Vec<_>>().join(" ")
}

/// Words as `str.split` of Python divides them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// ROUGE-L of summaries.
pub(super) fn rouge_l(text: &str, target: &str) -> f64 {
    let [text, target] = [text, target].map(sentences);
    if text.is_empty() || target.is_empty() {
        return 0.0;
    }
    let distinct = |sentences: &[Vec<&str>]| {
        sentences.iter().flatten().copied().collect::<BTreeSet<_>>().len() as f64
    };
    let mut union = BTreeSet::new();
    for of_target in &target {
        for of_text in &text {
            add_common(of_target, of_text, &mut union);
        }
    }
    let union_size = union.len() as f64;
    let [precision, recall] = [&text, &target].map(|sentences| union_size / distinct(sentences));
    2.0 * (precision * recall / (precision + recall + 1e-8))
}

/// The words of each sentence; the only word of a sentence of white space is empty.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let of_sentence = |sentence| match words(sentence).collect::<Vec<_>>() {
        words if words.is_empty() => vec![""],
        words => words,
    };
    text.split('.').filter(|sentence| !sentence.is_empty()).map(of_sentence).collect()
}

/// Adds the words of a longest common subsequence.
fn add_common<'a>(x: &[&'a str], y: &[&str], union: &mut BTreeSet<&'a str>) {
    let width = y.len() + 1;
    let mut lengths = vec![0_u32; (x.len() + 1) * width];
    for (i, from_x) in x.iter().enumerate() {
        for (j, from_y) in y.iter().enumerate() {
            lengths[(i + 1) * width + j + 1] = match from_x == from_y {
                true => lengths[i * width + j] + 1,
                false => lengths[i * width + j + 1].max(lengths[(i + 1) * width + j]),
            };
        }
    }
    let (mut i, mut j) = (x.len(), y.len());
    while i > 0 && j > 0 {
        if x[i - 1] == y[j - 1] {
            union.insert(x[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
}

/// The share of targets that a text contains, in any case: `string_match_all` of RULER.
pub(super) fn contained(text: &str, targets: &[String]) -> f64 {
    let text = text.to_lowercase();
    let found = targets.iter().filter(|target| text.contains(&target.to_lowercase())).count();
    found as f64 / targets.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, target, normalized text, F1 and ROUGE-L, as LongBench's `metrics.py` with rouge 1.0.1
    /// computes them.
    const CASES: [(&str, &str, &str, f64, f64); 16] = [
        ("The cat sat on the mat.", "A cat sat, on a mat", "cat sat on mat", 1.00000, 0.50000),
        ("", "x", "", 0.00000, 0.00000),
        ("x", "", "x", 0.00000, 0.00000),
        ("no", "Yes", "no", 0.00000, 0.00000),
        (
            "Paris. It is in France. Paris is big",
            "Paris, the capital of France. It is big. ",
            "paris it is in france paris is big",
            0.66667,
            0.53333,
        ),
        ("a b c d e f", "f e d c b a", "b c d e f", 1.00000, 0.16667),
        (" . . ", "x . y", "", 0.00000, 0.00000),
        (
            "caf\u{e9}-the \u{c9}TAT an_other the.a",
            "\u{e9}tat the cafe caf\u{e9}",
            "caf\u{e9}the \u{e9}tat another thea",
            0.28571,
            0.22222,
        ),
        (
            "one two two three three three",
            "three two one two",
            "one two two three three three",
            0.80000,
            0.66667,
        ),
        (
            "w1 w2 w6 w7 w8. w1 w3 w8 w9 w5",
            "w1 w2 w3 w4 w5",
            "w1 w2 w6 w7 w8 w1 w3 w8 w9 w5",
            0.53333,
            0.61538,
        ),
        ("The, the; a", "an", "", 0.00000, 0.00000),
        ("3.14 is pi.. ok", "pi is 3.14", "314 is pi ok", 0.85714, 0.66667),
        (
            "and x1 end. be x1",
            "be alpha a. be and to beta a.",
            "and x1 end be x1",
            0.36364,
            0.40000,
        ),
        ("gamma of, of, alpha gamma", "delta to", "gamma of of alpha gamma", 0.00000, 0.00000),
        (
            "end. beta end. beta and beta alpha to gamma gamma be to",
            "delta be of, x1 gamma be x1 be to delta the beta beta alpha delta",
            "end beta end beta and beta alpha to gamma gamma be to",
            0.46154,
            0.25000,
        ),
        (
            "and alpha x1 the delta end. a. delta a. x1 alpha be",
            "alpha x1 to alpha end. the",
            "and alpha x1 delta end delta x1 alpha be",
            0.57143,
            0.61538,
        ),
    ];

    #[test]
    fn scores_are_those_of_the_python_code() {
        for (text, target, expected, of_f1, of_rouge) in CASES {
            assert_eq!(normalized(text), expected, "{text}");
            let found = [f1(text, target), rouge_l(text, target)];
            for (found, expected) in found.into_iter().zip([of_f1, of_rouge]) {
                assert!((found - expected).abs() < 6e-6, "{text:?}, {target:?}: {found}");
            }
        }
    }

    #[test]
    fn targets_are_found_in_any_case() {
        let targets = ["ABCDE", "\u{c9}t", "none"].map(str::to_owned);
        assert_eq!(contained("x abcde, \u{e9}T", &targets), 2.0 / 3.0);
        assert_eq!(contained("", &targets), 0.0);
    }
}
