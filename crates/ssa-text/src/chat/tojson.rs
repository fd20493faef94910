//! Python's `json.dumps`.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, State};

use super::failure::{charge, invalid};
use super::format::float;

/// Maximum depth of nested lists and objects.
const MAX_DEPTH: usize = 200;

/// `tojson(value, ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    arguments: Rest<ValueOrKwargs>,
) -> Result<String, Error> {
    let arguments = arguments.into_values();
    let (positional, named): (&[Value], Kwargs) = from_args(&arguments)?;
    let argument = |place: usize, name: &str| match positional.get(place) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get::<Option<Value>>(name),
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?.filter(|value| !value.is_none());
    let separators = argument(2, "separators")?.filter(|value| !value.is_none());
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;

    let indent = indent.map(|indent| match (indent.as_str(), i64::try_from(indent.clone())) {
        (Some(text), _) => Ok(Indent::Text(text.to_owned())),
        (None, Ok(spaces)) => Ok(Indent::Spaces(usize::try_from(spaces).unwrap_or(0))),
        (None, Err(_)) => Err(invalid("`indent` of tojson is neither a number nor a string")),
    });
    let indent = indent.transpose()?;
    let (item, key) = match separators {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            match pair.as_slice() {
                [item, key] => (item.to_string(), key.to_string()),
                _ => return Err(invalid("`separators` of tojson is not a pair")),
            }
        }
    };
    let mut writer =
        Writer { state, ensure_ascii, indent, item, key, sort_keys, text: String::new() };
    writer.value(value, 0)?;
    Ok(writer.text)
}

enum Indent {
    Spaces(usize),
    Text(String),
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    ensure_ascii: bool,
    indent: Option<Indent>,
    item: String,
    key: String,
    sort_keys: bool,
    text: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: more than {MAX_DEPTH} nested values")));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.block(('[', ']'), &items, depth, |writer, item| {
                    writer.value(item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.block(('{', '}'), &keys, depth, |writer, key| {
                    writer.string(&key_text(key)?)?;
                    writer.text.push_str(&writer.key.clone());
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            other => return Err(invalid(format!("tojson: {other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn block(
        &mut self,
        (open, close): (char, char),
        items: &[Value],
        depth: usize,
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                self.text.push_str(&self.item.clone());
            }
            self.new_line(depth + 1)?;
            charge(self.state, 64)?;
            write(self, item)?;
        }
        if !items.is_empty() {
            self.new_line(depth)?;
        }
        self.text.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        let (unit, count) = match &self.indent {
            None => return Ok(()),
            Some(Indent::Spaces(spaces)) => (" ", spaces.saturating_mul(depth)),
            Some(Indent::Text(text)) => (text.as_str(), depth),
        };
        charge(self.state, unit.len().saturating_mul(count))?;
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(unit, count));
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        charge(self.state, text.len())?;
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
        Ok(())
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "NaN".to_owned(),
        Ok(number) if number.is_infinite() => {
            if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        other => Err(invalid(format!("tojson: a key is {other}"))),
    }
}
