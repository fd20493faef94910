//! Strings that end a text.

use crate::{InferError, Result};

/// Finds the first stop string of a text that arrives in pieces.
///
/// Exactly the text that may still become a stop string is held back: the longest end of the text
/// that is the beginning of one. What is found and what comes out does not depend on how the text
/// is divided.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What a piece of text led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Text that can be shown.
    No(String),
    /// The rest of the text before a stop string.
    Yes(String),
}

impl StopStrings {
    /// Stop strings; none is empty.
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty string.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(InferError::setting("stop", "at least one character", "empty"));
        }
        Ok(Self { stops, held: String::new() })
    }

    /// Takes the next piece of the text.
    ///
    /// Of several stop strings the first to be complete counts, and of those that end at the same
    /// character the longest.
    pub fn push(&mut self, piece: &str) -> Stopped {
        for character in piece.chars() {
            self.held.push(character);
            let complete = self.stops.iter().filter(|stop| self.held.ends_with(stop.as_str()));
            if let Some(length) = complete.map(String::len).max() {
                self.held.truncate(self.held.len() - length);
                return Stopped::Yes(std::mem::take(&mut self.held));
            }
        }
        let may_become_a_stop = |end: &str| self.stops.iter().any(|stop| stop.starts_with(end));
        let starts = self.held.char_indices().map(|(start, _)| start);
        let kept = { starts }.find(|&start| may_become_a_stop(&self.held[start..]));
        let held = self.held.split_off(kept.unwrap_or(self.held.len()));
        Stopped::No(std::mem::replace(&mut self.held, held))
    }

    /// The text held back when no more will come.
    pub fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(stops: &[&str]) -> StopStrings {
        StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect()).unwrap()
    }

    #[test]
    fn only_the_beginning_of_a_stop_string_is_held_back() {
        let mut stop = stops(&["\nUser:", "END"]);
        let no = |text: &str| Stopped::No(text.to_owned());
        assert_eq!(stop.push("Hello\n"), no("Hello"));
        assert_eq!(stop.push("Us"), no(""));
        assert_eq!(stop.push("ually"), no("\nUsually"));
        assert_eq!(stop.push(" E"), no(" "));
        assert_eq!(stop.push("E"), no("E"));
        assert_eq!(stop.push("ND of"), Stopped::Yes(String::new()));
        assert_eq!(stops(&["END"]).push("the END of"), Stopped::Yes("the ".to_owned()));
        let mut open = stops(&["END"]);
        assert_eq!(open.push("EN"), no(""));
        assert_eq!(open.finish(), "EN");
    }

    #[test]
    fn the_first_complete_string_counts_and_of_equals_the_longest() {
        assert_eq!(stops(&["cd", "bcd", "d"]).push("abcde"), Stopped::Yes("a".to_owned()));
        assert_eq!(stops(&["abcd", "b"]).push("abcd"), Stopped::Yes("a".to_owned()));
        assert_eq!(stops(&[]).push("abc"), Stopped::No("abc".to_owned()));
        let error = StopStrings::new(vec![String::new()]).unwrap_err().to_string();
        assert_eq!(error, "stop is empty, expected at least one character");
    }

    proptest! {
        #[test]
        fn the_division_of_a_text_does_not_matter(
            text in "[ab\u{4e2d}]{0,20}",
            stop in prop::collection::vec("[ab\u{4e2d}]{1,4}", 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let collect = |pieces: &[&str]| {
                let mut stops = StopStrings::new(stop.clone()).unwrap();
                let mut all = String::new();
                for piece in pieces {
                    match stops.push(piece) {
                        Stopped::No(text) => all += &text,
                        Stopped::Yes(text) => return all + &text + "|",
                    }
                }
                all + &stops.finish()
            };
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let one_by_one: Vec<&str> = characters.iter().map(String::as_str).collect();
            let whole = collect(&[&text]);
            prop_assert_eq!(&whole, &collect(&one_by_one));
            let mut cut = cut.index(text.len() + 1);
            while !text.is_char_boundary(cut) { cut -= 1; }
            prop_assert_eq!(&whole, &collect(&[&text[..cut], &text[cut..]]));
            // Against the definition.
            let ends = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
            let found = ends.filter_map(|end| {
                let longest = stop.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
                longest.map(String::len).max().map(|length| format!("{}|", &text[..end - length]))
            }).next();
            prop_assert_eq!(whole, found.unwrap_or(text));
        }
    }
}
