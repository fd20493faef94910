//! The user's text as sentences of words.

use ssa_data::Document;

/// A sentence ends here if it has no end of its own.
const LONGEST_SENTENCE: usize = 100;

/// The sentences of all documents, in order. White space between words is one space, as in RULER.
#[derive(Debug)]
pub(super) struct Haystack {
    text: String,
    sentences: Vec<Sentence>,
    words: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sentence {
    /// First byte, and the one behind the last.
    bytes: [usize; 2],
    words: usize,
}

impl Haystack {
    /// `None` for documents without a word.
    pub(super) fn new(documents: &[Document]) -> Option<Self> {
        let mut haystack = Self { text: String::new(), sentences: Vec::new(), words: 0 };
        for document in documents {
            haystack.add(&String::from_utf8_lossy(&document.text));
        }
        (haystack.words > 0).then_some(haystack)
    }

    fn add(&mut self, document: &str) {
        let mut words = document.split_whitespace().peekable();
        let (mut start, mut count) = (self.text.len(), 0);
        while let Some(word) = words.next() {
            if self.text.len() > start {
                self.text.push(' ');
            }
            self.text.push_str(word);
            count += 1;
            if ends_sentence(word) || count == LONGEST_SENTENCE || words.peek().is_none() {
                self.sentences.push(Sentence { bytes: [start, self.text.len()], words: count });
                self.words += count;
                (start, count) = (self.text.len(), 0);
            }
        }
    }

    pub(super) fn sentences(&self) -> usize {
        self.sentences.len()
    }

    /// Number of words.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// So many words from a sentence on, as sentences; the last may be cut. After its end the text
    /// begins again.
    pub(super) fn passage(&self, first: usize, words: usize) -> Vec<&str> {
        let mut passage = Vec::new();
        let mut left = words;
        for index in (first..self.sentences.len()).chain((0..self.sentences.len()).cycle()) {
            if left == 0 {
                break;
            }
            let Sentence { bytes: [from, to], words } = self.sentences[index];
            let sentence = &self.text[from..to];
            let end = match words > left {
                true => sentence.match_indices(' ').nth(left - 1).map_or(to - from, |(at, _)| at),
                false => to - from,
            };
            passage.push(&sentence[..end]);
            left -= words.min(left);
        }
        passage
    }
}

/// Whether a sentence ends with a word: after a period, a question or an exclamation mark, with
/// quotes or brackets behind it. RULER uses the tokenizer of NLTK, which knows abbreviations.
fn ends_sentence(word: &str) -> bool {
    let closing = |c: char| "\"')]}\u{2019}\u{201d}".contains(c);
    word.trim_end_matches(closing).ends_with(['.', '!', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn haystack(texts: &[&str]) -> Option<Haystack> {
        let document =
            |text: &&str| Document { name: String::new(), text: text.as_bytes().to_vec() };
        Haystack::new(&texts.iter().map(document).collect::<Vec<_>>())
    }

    #[test]
    fn passages_are_cut_after_words_and_begin_again() {
        let haystack = haystack(&["One two.  \"Three!\" four\nfive", "six? seven"]).unwrap();
        assert_eq!((haystack.sentences(), haystack.words()), (5, 7));
        assert_eq!(
            haystack.passage(0, 7),
            ["One two.", "\"Three!\"", "four five", "six?", "seven"]
        );
        assert_eq!(haystack.passage(2, 1), ["four"]);
        assert_eq!(haystack.passage(4, 4), ["seven", "One two.", "\"Three!\""]);
        assert!(haystack.passage(1, 0).is_empty());
        let long = vec!["x"; LONGEST_SENTENCE + 3].join(" ");
        assert_eq!(super::Haystack::new(&[]).map(|it| it.words()), None);
        assert_eq!(self::haystack(&[&long]).unwrap().sentences(), 2);
        assert!(self::haystack(&[" \n"]).is_none());
    }
}
