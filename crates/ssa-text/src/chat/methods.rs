//! Python's methods of strings and lists.

use minijinja::value::{Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::failure::{charge, invalid};

/// Calls a method: one from this module, else one from minijinja's library.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let own = match (value.as_str(), value.kind()) {
        (Some(text), _) => string_method(state, text, method, arguments)?,
        (None, ValueKind::Seq) => list_method(value, method, arguments)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => unknown_method_callback(state, value, method, arguments),
    }
}

fn string_method(
    state: &State<'_, '_>,
    text: &str,
    method: &str,
    arguments: &[Value],
) -> Result<Option<Value>, Error> {
    let parts = |parts: [&str; 3]| Value::from(Tuple::from(parts.map(Value::from)));
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            text.split_once(separator).map_or_else(
                || parts([text, "", ""]),
                |(before, after)| parts([before, separator, after]),
            )
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            text.rsplit_once(separator).map_or_else(
                || parts(["", "", text]),
                |(before, after)| parts([before, separator, after]),
            )
        }
        "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(arguments)?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            let mut words: Vec<&str> = match separator {
                Some(separator) => {
                    text.rsplitn(limit.map_or(usize::MAX, |limit| limit + 1), separator).collect()
                }
                None => rsplit_white_space(text, limit.unwrap_or(usize::MAX)),
            };
            words.reverse();
            words.into_iter().map(Value::from).collect()
        }
        "split" if arguments.first().and_then(Value::as_str) == Some("") => {
            return Err(invalid("empty separator"));
        }
        "index" | "rindex" => {
            let (wanted,): (&str,) = from_args(arguments)?;
            let at = if method == "index" { text.find(wanted) } else { text.rfind(wanted) };
            let at = at.ok_or_else(|| invalid("substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        "swapcase" => text
            .chars()
            .map(|c| match c {
                c if c.is_uppercase() => c.to_lowercase().to_string(),
                c => c.to_uppercase().to_string(),
            })
            .collect::<String>()
            .into(),
        "casefold" => Value::from(text.to_lowercase().replace('\u{df}', "ss")),
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(arguments)?;
            let missing = width.saturating_sub(text.chars().count());
            charge(state, missing)?;
            let left = match method {
                "ljust" => 0,
                "rjust" => missing,
                // Python's rule for a remainder of one.
                _ => missing / 2 + (missing & width & 1),
            };
            let fill = fill.unwrap_or(" ");
            Value::from(fill.repeat(left) + text + &fill.repeat(missing - left))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(arguments)?;
            let missing = width.saturating_sub(text.chars().count());
            charge(state, missing)?;
            let signed = text.starts_with(['+', '-']);
            let (sign, digits) = text.split_at(usize::from(signed));
            Value::from(sign.to_owned() + &"0".repeat(missing) + digits)
        }
        "isdecimal" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        _ => return Ok(None),
    }))
}

/// Splits words from the end of a text, in reverse: at most `limit`, then the rest.
fn rsplit_white_space(text: &str, limit: usize) -> Vec<&str> {
    let (mut rest, mut words) = (text.trim_end(), Vec::new());
    while !rest.is_empty() {
        match rest.rfind(char::is_whitespace).filter(|_| words.len() < limit) {
            Some(at) => {
                let word = rest[at..].trim_start();
                words.push(word);
                rest = rest[..at].trim_end();
            }
            None => {
                words.push(rest);
                break;
            }
        }
    }
    words
}

fn list_method(value: &Value, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            let at = value.try_iter()?.position(|item| item == *wanted);
            at.map(|at| Some(Value::from(at))).ok_or_else(|| invalid("item is not in the list"))
        }
        // Methods that change a list are refused, as in the sandbox of Jinja2.
        "append" | "extend" | "insert" | "remove" | "pop" | "clear" | "sort" | "reverse" => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{method} would change a list")))
        }
        _ => Ok(None),
    }
}
