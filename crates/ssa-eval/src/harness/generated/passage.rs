//! A context of growing size: the user's text, or sentences that say nothing.

use super::draws::Draws;
use super::haystack::Haystack;

/// RULER's sentences for a haystack without a text.
const NOISE: &str = "The grass is green. The sky is blue. The sun is yellow. Here we go. There \
                     and back again.";

/// Where the sentences of a context come from. A unit is a word of a text, or a line of noise.
pub(super) enum Passage<'a> {
    /// A text from a sentence on.
    Text(&'a Haystack, usize),
    Noise,
}

impl<'a> Passage<'a> {
    /// A text from a random sentence on; without a text, noise. RULER begins at the beginning.
    pub(super) fn new(haystack: Option<&'a Haystack>, draws: &mut Draws) -> Self {
        match haystack {
            Some(haystack) => Self::Text(haystack, draws.below(haystack.sentences())),
            None => Self::Noise,
        }
    }

    /// So many units as sentences.
    pub(super) fn sentences(&self, units: usize) -> Vec<&'a str> {
        match self {
            Self::Text(haystack, first) => haystack.passage(*first, units),
            Self::Noise => vec![NOISE; units],
        }
    }

    /// What is between sentences.
    pub(super) fn separator(&self) -> &'static str {
        match self {
            Self::Text(..) => " ",
            Self::Noise => "\n",
        }
    }
}

/// Sentences with others inserted before the sentences of the given numbers, joined. Of equal
/// numbers the first comes first.
pub(super) fn inserted(
    sentences: &[&str],
    mut others: Vec<(usize, &str)>,
    separator: &str,
) -> String {
    others.sort_by_key(|(before, _)| *before);
    let mut all = Vec::with_capacity(sentences.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (index, sentence) in sentences.iter().enumerate() {
        while let Some((_, other)) = others.next_if(|(before, _)| *before <= index) {
            all.push(other);
        }
        all.push(sentence);
    }
    all.extend(others.map(|(_, other)| other));
    all.join(separator)
}

/// The number of sentences before a depth in percent.
pub(super) fn at_depth(sentences: usize, depth: usize) -> usize {
    sentences * depth / 100
}
