//! Reads one field of a JSON object and skips the others.
//!
//! JSON is parsed as in Python: `NaN` and `Infinity` are numbers. A name with dots is a key, or a
//! path through nested objects.

use jiter::{Jiter, JiterError, JiterErrorType, JsonType, Peek};
use ssa_text::{Conversation, Json};

/// The text at a key; null and blank lines give an empty text.
pub(super) fn text(object: &[u8], field: &str) -> Result<Vec<u8>, String> {
    let Some(value) = required(object, field, "--text-field")? else { return Ok(Vec::new()) };
    let mut parser = parser(value);
    let is_null = parser.peek().is_ok_and(|first| first == Peek::Null);
    if is_null {
        return Ok(Vec::new());
    }
    let text = parser.next_str().map(|text| text.as_bytes().to_vec());
    text.map_err(|error| match error.error_type {
        JiterErrorType::WrongType { actual, .. } => format!(
            "`{field}` is {}, expected a string\nhint: name the key of the text with --text-field",
            kind(&actual)
        ),
        JiterErrorType::JsonError(_) => invalid(&error, &parser),
    })
}

/// The conversation at a key, with the `tools` next to it; null and blank lines give an empty one.
pub(super) fn conversation(object: &[u8], field: &str) -> Result<Conversation, String> {
    let named = |key: &str, cause: String| format!("`{key}`: {cause}");
    let messages = match required(object, field, "--conversations-field")? {
        None => Json::Null,
        Some(value) => Json::parse(value).map_err(|cause| named(field, cause))?,
    };
    let tools_field = sibling(field, "tools");
    let tools = match find(object, &tools_field)? {
        Found::Value(value) => {
            Some(Json::parse(value).map_err(|cause| named(&tools_field, cause))?)
        }
        Found::Nothing { .. } => None,
    };
    Conversation::new(messages, tools).map_err(|error| named(field, error.to_string()))
}

/// The name of a field next to another.
pub(super) fn sibling(field: &str, name: &str) -> String {
    field.rsplit_once('.').map_or_else(|| name.to_owned(), |(path, _)| format!("{path}.{name}"))
}

/// Formats names for messages.
pub(super) fn list(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => {
            names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
        }
    }
}

enum Found<'a> {
    Value(&'a [u8]),
    /// The existing keys, and the path to them.
    Nothing {
        within: String,
        keys: Vec<String>,
    },
}

/// The value of a required field; `None` for a blank line.
fn required<'a>(object: &'a [u8], field: &str, flag: &str) -> Result<Option<&'a [u8]>, String> {
    if object.trim_ascii().is_empty() {
        return Ok(None);
    }
    match find(object, field)? {
        Found::Value(value) => Ok(Some(value)),
        Found::Nothing { within, keys } => Err(format!(
            "no key `{field}`, only {}{within}\nhint: name the right one with {flag}",
            list(&keys)
        )),
    }
}

/// Finds a field, by key or by path.
fn find<'a>(object: &'a [u8], field: &str) -> Result<Found<'a>, String> {
    if object.trim_ascii().is_empty() {
        return Ok(Found::Nothing { within: String::new(), keys: Vec::new() });
    }
    let mut parser = parser(object);
    find_in(&mut parser, object, field)
        .and_then(|found| parser.finish().map(|()| found))
        .map_err(|error| invalid(&error, &parser))?
}

/// The inner result is an error if the field is ambiguous.
fn find_in<'a>(
    parser: &mut Jiter<'a>,
    object: &'a [u8],
    field: &str,
) -> Result<Result<Found<'a>, String>, JiterError> {
    if parser.peek()? != Peek::Object {
        // Reports invalid JSON as such, not as a wrong type.
        self::parser(object).next_skip()?;
    }
    let (mut found, mut nested) = (None, None);
    let mut keys = Vec::new();
    let mut next = parser.next_object()?.map(str::to_owned);
    while let Some(key) = next {
        let first = parser.peek()?;
        let start = parser.current_index();
        parser.known_skip(first)?;
        let value = &object[start..parser.current_index()];
        if key == field {
            found = Some(value);
        } else if first == Peek::Object
            && let Some(rest) = field.strip_prefix(&*key).and_then(|rest| rest.strip_prefix('.'))
        {
            nested = Some((key.clone(), rest, value));
        }
        keys.push(key);
        next = parser.next_key()?.map(str::to_owned);
    }
    Ok(match (found, nested) {
        (Some(_), Some((key, rest, _))) => Err(format!(
            "`{field}` is a key, and `{rest}` is one in `{key}`\nhint: rename one of the two"
        )),
        (Some(value), None) => Ok(Found::Value(value)),
        (None, Some((key, rest, value))) => find(value, rest).map(|found| match found {
            Found::Nothing { keys, .. } => Found::Nothing { within: format!(" in `{key}`"), keys },
            value => value,
        }),
        (None, None) => Ok(Found::Nothing { within: String::new(), keys }),
    })
}

fn parser(text: &[u8]) -> Jiter<'_> {
    Jiter::new(text).with_allow_inf_nan()
}

fn invalid(error: &JiterError, parser: &Jiter<'_>) -> String {
    match &error.error_type {
        JiterErrorType::WrongType { actual, .. } => {
            format!("{}, expected a JSON object", kind(actual))
        }
        JiterErrorType::JsonError(_) => {
            format!("not valid JSON: {}", error.description(parser))
        }
    }
}

fn kind(json: &JsonType) -> &'static str {
    match json {
        JsonType::Null => "null",
        JsonType::Bool => "a boolean",
        JsonType::Int | JsonType::Float => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    }
}
