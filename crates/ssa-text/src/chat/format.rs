//! Formats values as in Python.

use std::fmt::{self, Display, Formatter};

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::failure::{charge, invalid};

/// Maximum depth of nested lists and objects.
const MAX_DEPTH: usize = 200;

/// Formats a value like Python's `str`.
pub(super) struct Python<'a>(pub(super) &'a Value);

impl Display for Python<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            ValueKind::Number => write_number(f, self.0),
            ValueKind::Seq | ValueKind::Map => write_repr(f, self.0, 0),
            _ => self.0.fmt(f),
        }
    }
}

/// Formats a value like Python's `repr`.
struct Repr<'a>(&'a Value);

impl Display for Repr<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_repr(f, self.0, 0)
    }
}

fn write_repr(f: &mut Formatter<'_>, value: &Value, depth: usize) -> fmt::Result {
    if depth > MAX_DEPTH {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::Number => write_number(f, value),
        ValueKind::Undefined => f.write_str("Undefined"),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            f.write_str(open)?;
            let mut count = 0;
            for item in value.try_iter().map_err(|_| fmt::Error)? {
                if count > 0 {
                    f.write_str(", ")?;
                }
                write_repr(f, &item, depth + 1)?;
                count += 1;
            }
            if value.is_tuple() && count == 1 {
                f.write_str(",")?;
            }
            f.write_str(close)
        }
        ValueKind::Map => {
            f.write_str("{")?;
            for (number, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                if number > 0 {
                    f.write_str(", ")?;
                }
                write_repr(f, &key, depth + 1)?;
                f.write_str(": ")?;
                write_repr(f, &value.get_item(&key).map_err(|_| fmt::Error)?, depth + 1)?;
            }
            f.write_str("}")
        }
        _ => write!(f, "{value:?}"),
    }
}

fn write_number(f: &mut Formatter<'_>, value: &Value) -> fmt::Result {
    if value.is_integer() {
        return value.fmt(f);
    }
    match f64::try_from(value.clone()) {
        Ok(number) => f.write_str(&float(number)),
        Err(_) => value.fmt(f),
    }
}

/// Formats a float like Python's `repr`: the fewest digits that round-trip, with an exponent from
/// 10^16 up and below 10^-4.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Formats like Python's `%` operator.
pub(super) fn printf(
    state: &State<'_, '_>,
    text: &str,
    arguments: &[Value],
) -> Result<String, Error> {
    // Charge fuel for widths and precisions before padding.
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = numbers.map(|digits| digits.parse::<usize>().unwrap_or(usize::MAX));
    let starred = arguments
        .iter()
        .filter(|_| text.contains('*'))
        .filter_map(|argument| usize::try_from(argument.clone()).ok());
    charge(state, widths.chain(starred).fold(0, usize::saturating_add))?;
    let (text, arguments) = as_text(text, arguments);
    format(FormatStyle::Printf, &text, &arguments)
        .map_err(|error| invalid(error.detail().map_or_else(|| error.to_string(), str::to_owned)))
}

/// The format with `%r` replaced by `%s`, and the arguments of both formatted as in Python.
fn as_text(text: &str, arguments: &[Value]) -> (String, Vec<Value>) {
    let (mut format, mut arguments) = (String::with_capacity(text.len()), arguments.to_vec());
    let (mut rest, mut number) = (text, 0);
    while let Some((before, after)) = rest.split_once('%') {
        format += before;
        format.push('%');
        let is_kind = |c: char| c.is_ascii_alphabetic() || c == '%';
        let end = if after.starts_with('(') {
            after.find(')').and_then(|end| Some(end + after[end..].find(is_kind)?))
        } else {
            after.find(is_kind)
        };
        let Some(end) = end else {
            rest = after;
            break;
        };
        let kind = &after[end..=end];
        if let Some(argument) = arguments.get_mut(number).filter(|_| !after.starts_with('(')) {
            match kind {
                "s" if argument.kind() != ValueKind::String => {
                    *argument = Value::from(Python(argument).to_string());
                }
                // Python truncates the fraction.
                "d" | "i" | "u" if !argument.is_integer() => {
                    if let Ok(number) = f64::try_from(argument.clone()) {
                        *argument = Value::from(number.trunc() as i128);
                    }
                }
                "r" => *argument = Value::from(Repr(argument).to_string()),
                _ => {}
            }
        }
        number += usize::from(kind != "%");
        format += &after[..end];
        format += if kind == "r" { "s" } else { kind };
        rest = &after[end + 1..];
    }
    (format + rest, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_formatted_as_in_python() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
