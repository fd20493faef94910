//! What Python functions do to the rows of tasks of the harness.

use ssa_text::Json;

/// Fields that are added to every row: `process_docs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preprocessor {
    /// `query` of `activity_label`, `ctx_a` and `ctx_b`, and `choices` of `endings`, both without
    /// the marks of WikiHow; `hellaswag/utils.py`.
    Hellaswag,
    /// `text` of `page`, detokenized; `wikitext/preprocess_wikitext.py`.
    Wikitext,
}

ssa_names::names!(Preprocessor: "process_docs" { Hellaswag = "hellaswag", Wikitext = "wikitext" });

impl Preprocessor {
    /// Adds the fields of a row.
    ///
    /// # Errors
    /// Names the field that is missing or is not a text.
    pub(super) fn apply(self, row: &mut Json) -> Result<(), String> {
        let added = match self {
            Self::Hellaswag => {
                let context =
                    format!("{} {}", text(row, "ctx_a")?, capitalized(text(row, "ctx_b")?));
                let query = format!("{}: {context}", text(row, "activity_label")?);
                let Some(Json::List(endings)) = row.get("endings") else {
                    return Err("`endings` is missing, or is not a list".to_owned());
                };
                let endings = endings.iter().map(|ending| match ending {
                    Json::String(ending) => Ok(Json::String(without_marks(ending))),
                    _ => Err("`endings` is not a list of texts".to_owned()),
                });
                vec![
                    ("query", Json::String(without_marks(&query))),
                    ("choices", Json::List(endings.collect::<Result<_, _>>()?)),
                ]
            }
            Self::Wikitext => vec![("text", Json::String(detokenized(text(row, "page")?)))],
        };
        if let Json::Object(fields) = row {
            fields.retain(|(name, _)| added.iter().all(|(new, _)| name != new));
            fields.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        Ok(())
    }
}

fn text<'a>(row: &'a Json, field: &str) -> Result<&'a str, String> {
    match row.get(field) {
        Some(Json::String(text)) => Ok(text),
        Some(_) => Err(format!("`{field}` is not a text")),
        None => Err(format!("no field `{field}`")),
    }
}

/// Python's `str.capitalize`.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &characters.as_str().to_lowercase()
}

/// A text of HellaSwag without brackets, which come from WikiHow.
fn without_marks(text: &str) -> String {
    let text = text.trim_matches(is_space).replace(" [title]", ". ");
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some(start) = rest.find('[') {
        // What is in brackets has no line break.
        let end = rest[start..].find([']', '\n']).map(|end| start + end);
        let next = match end {
            Some(end) if rest[end..].starts_with(']') => {
                out += &rest[..start];
                end + 1
            }
            _ => {
                out += &rest[..=start];
                start + 1
            }
        };
        rest = &rest[next..];
    }
    (out + rest).replace("  ", " ")
}

/// A page of WikiText as it was written.
fn detokenized(page: &str) -> String {
    let mut text = slashed_digits(&page.replace("s '", "s'"));
    for mark in ["-", ",", "."] {
        text = text.replace(&format!(" @{mark}@ "), mark);
    }
    for mark in [":", ";", ".", "!", "?", ","] {
        text = text.replace(&format!(" {mark} "), &format!("{mark} "));
    }
    for (open, close) in [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')] {
        text = tightened(&text, open, close);
    }
    for (from, to) in [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ] {
        text = text.replace(from, to);
    }
    text
}

/// Replaces `/' 5/` as the harness does: by the text of its pattern.
fn slashed_digits(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find("/' ") {
        let after = &rest[start + 3..];
        let matches =
            after.starts_with(|c: char| c.is_ascii_digit()) && after[1..].starts_with('/');
        out += &rest[..start];
        out += if matches { "/'[0-9]/" } else { "/" };
        rest = if matches { &after[2..] } else { &rest[start + 1..] };
    }
    out + rest
}

/// Removes white space after `open` and before the next `close`.
fn tightened(text: &str, open: char, close: char) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once(open) {
        let Some((inner, next)) = after.split_once(close) else { break };
        out += before;
        out.push(open);
        out += inner.trim_matches(is_space);
        out.push(close);
        rest = next;
    }
    out + rest
}

/// Whether Python counts a character as white space.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn pages_are_detokenized() {
        for (page, expected) in [
            (
                " = Title = \n \n the dog 's @-@ 1 @,@ 000 , he said : \" well \" . \n",
                " = Title =\n\nthe dog's-1,000, he said: \"well\".\n",
            ),
            ("( a ( b ) c )", "(a ( b) c )"),
            ("[ x ] { y } ( open", "[x] {y} ( open"),
            ("= = = Deep = = =", "=== Deep ==="),
            ("a /' 5/ b /' x", "a /'[0-9]/ b /' x"),
            ("20 \u{b0} N x", "20\u{b0}N x"),
        ] {
            assert_eq!(detokenized(page), expected, "{page}");
        }
    }

    #[test]
    fn hellaswag_is_without_brackets() {
        let mut fields =
            row(r#"{"activity_label": "Home", "ctx_a": "[header] How to [title] Cook.",
                "ctx_b": "hE [x", "endings": [" a [b] [c\n] d", "e"]}"#);
        Preprocessor::Hellaswag.apply(&mut fields).unwrap();
        let expected =
            row(r#"{"query": "Home: How to. Cook. He [x", "choices": ["a [c\n] d", "e"]}"#);
        assert_eq!(fields.get("query"), expected.get("query"));
        assert_eq!(fields.get("choices"), expected.get("choices"));
    }

    #[test]
    fn missing_fields_are_named() {
        let cause = Preprocessor::Wikitext.apply(&mut row("{}")).unwrap_err();
        assert_eq!(cause, "no field `page`");
        let cause = Preprocessor::Wikitext.apply(&mut row(r#"{"page": 1}"#)).unwrap_err();
        assert_eq!(cause, "`page` is not a text");
        let mut fields = row(r#"{"ctx_a": "", "ctx_b": "", "activity_label": ""}"#);
        let cause = Preprocessor::Hellaswag.apply(&mut fields).unwrap_err();
        assert!(cause.contains("`endings` is missing"), "{cause}");
    }
}
