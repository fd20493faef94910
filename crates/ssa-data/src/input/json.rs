//! One field of a JSON object, the others skipped unread.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::Message;

/// The text at a key; a null and a blank line are an empty text.
pub(super) fn text(line: &[u8], field: &str) -> Result<Vec<u8>, String> {
    let text: Option<Option<String>> = at_key(line, field, "text_field")?;
    Ok(text.flatten().map(String::into_bytes).unwrap_or_default())
}

/// The conversation at a key; a null and a blank line are an empty one.
pub(super) fn messages(line: &[u8], field: &str) -> Result<Vec<Message>, String> {
    let messages: Option<Option<Vec<Message>>> = at_key(line, field, "conversations_field")?;
    Ok(messages.flatten().unwrap_or_default())
}

/// The value at a key of a JSON object; nothing for a blank line.
fn at_key<'a, T: Deserialize<'a>>(
    line: &'a [u8],
    key: &str,
    setting: &str,
) -> Result<Option<T>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let found = AtKey { key, value: PhantomData }
        .deserialize(&mut deserializer)
        .and_then(|found| deserializer.end().map(|()| found))
        .map_err(|error| {
            format!("no JSON object with such a `{key}` ({error}); correct the line or remove it")
        })?;
    match found {
        Found::Value(value) => Ok(Some(value)),
        Found::OtherKeys(keys) => Err(format!(
            "no key `{key}`, only {}; name the right one with `{setting}`",
            list(&keys)
        )),
    }
}

/// Names for people to read.
pub(super) fn list(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => {
            names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
        }
    }
}

enum Found<'a, T> {
    Value(T),
    OtherKeys(Vec<Cow<'a, str>>),
}

struct AtKey<'k, T> {
    key: &'k str,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtKey<'_, T> {
    type Value = Found<'de, T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtKey<'_, T> {
    type Value = Found<'de, T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut value, mut keys) = (None, Vec::new());
        while let Some(Key(key)) = map.next_key()? {
            if key == self.key {
                value = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
                keys.push(key);
            }
        }
        Ok(value.map_or(Found::OtherKeys(keys), Found::Value))
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
