//! Reading the keys of a JSON object.

use serde_json::{Map, Value};

use crate::{ModelError, Result};

/// The keys of one JSON object. `null` counts as missing: Hugging Face writes it for "not set".
pub(super) struct Keys<'a> {
    origin: &'a str,
    /// Path of the object within the file, with a dot at its end.
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The keys of the root object of `origin`. Errors name `origin`.
    pub(super) fn new(origin: &'a str, map: &'a Map<String, Value>) -> Self {
        Self { origin, prefix: String::new(), map }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.error(key, expected)),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a string", Value::as_str)
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>> {
        let texts = self.read(key, "a list of strings", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })?;
        Ok(texts.unwrap_or_default())
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "an integer", |value| value.as_u64()?.try_into().ok())
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.read(key, "a token ID", token)?.flatten())
    }

    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let tokens = self.read(key, "a token ID or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(token).collect::<Option<Vec<_>>>(),
            single => token(single).map(|token| vec![token]),
        })?;
        Ok(tokens.unwrap_or_default().into_iter().flatten().collect())
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Keys<'a>>> {
        let map = self.read(key, "an object or null", Value::as_object)?;
        Ok(map.map(|map| Keys {
            origin: self.origin,
            prefix: format!("{}{key}.", self.prefix),
            map,
        }))
    }

    /// Reads a required key with one of the methods above.
    pub(super) fn required<T>(
        &self,
        key: &str,
        read: impl Fn(&Self, &str) -> Result<Option<T>>,
    ) -> Result<T> {
        read(self, key)?.ok_or_else(|| self.error(key, "a value"))
    }

    /// The error for a key whose value is not as expected.
    pub(super) fn error(&self, key: &str, expected: &str) -> ModelError {
        let value = self.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        ModelError::config(self.origin, format!("{}{key}", self.prefix), value, expected)
    }
}

/// A token ID; -1 means "none", as in many published files.
fn token(value: &Value) -> Option<Option<u32>> {
    match value.as_i64()? {
        -1 => Some(None),
        number => number.try_into().ok().map(Some),
    }
}
