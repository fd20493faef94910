//! JSON with the rules of Python's `json` module: `NaN` and `Infinity` are numbers, objects keep
//! the order of their keys, integers have any size, and the last of equal keys wins.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiter::JsonValue;
use minijinja::Value;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// Any other number, including `NaN` and infinities.
    Float(f64),
    /// A string.
    String(String),
    /// An array.
    List(Vec<Json>),
    /// An object, with unique keys in order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a text.
    ///
    /// # Errors
    /// The problem and its position.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let value =
            JsonValue::parse(text, true).map_err(|error| error.description(text).to_string())?;
        Self::try_from(value)
    }

    /// The value at a key, if this is an object with the key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Approximate bytes of memory: all strings, and a few bytes per other value.
    pub fn bytes(&self) -> usize {
        const VALUE: usize = size_of::<Json>();
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => VALUE,
            Self::String(text) => VALUE + text.len(),
            Self::List(items) => VALUE + items.iter().map(Self::bytes).sum::<usize>(),
            Self::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| VALUE + key.len() + value.bytes());
                VALUE + entries.sum::<usize>()
            }
        }
    }

    /// Converts the value for templates.
    pub(crate) fn to_template(&self) -> Value {
        match self {
            Self::Null => Value::from(()),
            Self::Bool(value) => Value::from(*value),
            Self::Int(value) => {
                i64::try_from(*value).map_or_else(|_| Value::from(*value), Value::from)
            }
            Self::Float(value) => Value::from(*value),
            Self::String(text) => Value::from(text.as_str()),
            Self::List(items) => Value::from_iter(items.iter().map(Self::to_template)),
            Self::Object(entries) => {
                let entries = entries.iter();
                Value::from_pairs(entries.map(|(key, value)| (key.as_str(), value.to_template())))
            }
        }
    }
}

impl TryFrom<JsonValue<'_>> for Json {
    type Error = String;

    fn try_from(value: JsonValue<'_>) -> Result<Self, String> {
        Ok(match value {
            JsonValue::Null => Self::Null,
            JsonValue::Bool(value) => Self::Bool(value),
            JsonValue::Int(value) => Self::Int(value.into()),
            JsonValue::BigInt(value) => match i128::try_from(&value) {
                Ok(value) => Self::Int(value),
                Err(_) => return Err(format!("the number {value} has more than 127 bits")),
            },
            JsonValue::Float(value) => Self::Float(value),
            JsonValue::Str(text) => Self::String(text.into_owned()),
            JsonValue::Array(items) => {
                Self::List(items.iter().cloned().map(Self::try_from).collect::<Result<_, _>>()?)
            }
            JsonValue::Object(entries) => {
                let mut places: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
                let mut object: Vec<(String, Self)> = Vec::with_capacity(entries.len());
                for (key, value) in entries.iter() {
                    let value = Self::try_from(value.clone())?;
                    match places.entry(key) {
                        Entry::Occupied(place) => object[*place.get()].1 = value,
                        Entry::Vacant(place) => {
                            place.insert(object.len());
                            object.push((key.clone().into_owned(), value));
                        }
                    }
                }
                Self::Object(object)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_in_python() {
        let text =
            br#"{"b": [1, -2.5, NaN, -Infinity, 18446744073709551616], "a": "\u00e9", "b": {}}"#;
        let Ok(Json::Object(entries)) = Json::parse(text) else { panic!("an object") };
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["b", "a"]);
        assert_eq!(entries[0].1, Json::Object(vec![]), "the last of equal keys");
        assert_eq!(entries[1].1, Json::String("\u{e9}".to_owned()));
        let list = Json::parse(b"[1, -2.5, -Infinity, 18446744073709551616]").unwrap();
        let expected =
            [Json::Int(1), Json::Float(-2.5), Json::Float(f64::NEG_INFINITY), Json::Int(1 << 64)];
        assert_eq!(list, Json::List(expected.to_vec()));
        let nan = Json::parse(b"NaN").unwrap();
        assert!(matches!(nan, Json::Float(value) if value.is_nan()));
        for text in ["", "{", "[1,]", "{\"a\" 1}", "nan", "1 2", "\"\\ud800\""] {
            assert!(Json::parse(text.as_bytes()).is_err_and(|cause| !cause.is_empty()), "{text}");
        }
    }
}
