//! `--set key=value`.

use toml::{Table, Value};

use super::schema::parent;
use super::{ConfigError, TrainConfig};

/// Applies overrides of the form `section.key=value` in order; the last one for a key wins.
///
/// The value is parsed as TOML (`3e-4`, `true`, `["16x4"]`), or taken as a string if it is not
/// TOML, so words and paths need no quotes. Each override is checked like a file with only this
/// key.
///
/// # Errors
/// [`ConfigError`] naming the flag: no `=`, an unknown key, or a value of the wrong type.
pub fn apply_overrides(table: &mut Table, overrides: &[String]) -> Result<(), ConfigError> {
    overrides.iter().try_for_each(|text| apply(table, text))
}

fn apply(table: &mut Table, text: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Override { text: text.to_owned() };
    let (key, value) = text.split_once('=').ok_or_else(malformed)?;
    let (key, value) = (key.trim(), value.trim());
    let (section, field) = (parent(key), key.rsplit('.').next().unwrap_or_default());
    if key.split('.').any(str::is_empty) {
        return Err(malformed());
    }
    let parsed = value.parse::<Value>().ok();
    let unquoted = parsed.is_none() && value.starts_with('[');
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let path = || section.split('.').filter(|name| !name.is_empty());

    let alone = Table::from_iter([(field.to_owned(), value.clone())]);
    let nested = path()
        .rev()
        .fold(alone, |inner, name| Table::from_iter([(name.to_owned(), Value::Table(inner))]));
    TrainConfig::from_table(nested, &format!("--set {text}")).map_err(|error| match error {
        ConfigError::WrongType { .. } if unquoted => {
            ConfigError::UnquotedList { text: text.to_owned() }
        }
        error => error,
    })?;

    let mut target = table;
    for name in path() {
        let entry = target.entry(name).or_insert_with(|| Value::Table(Table::new()));
        // Reading the file already refuses a value in place of a section.
        let Some(inner) = entry.as_table_mut() else { return Ok(()) };
        target = inner;
    }
    target.insert(field.to_owned(), value);
    Ok(())
}
