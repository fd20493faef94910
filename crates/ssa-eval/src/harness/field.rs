//! The fields `doc_to_...` of a task: a column, a template, or a value of the task file itself.

use serde_json::Value;
use ssa_text::{Json, Rendered, Template};

/// Where a prompt, a target or choices come from.
#[derive(Debug)]
pub(super) enum Field {
    /// A column of the rows.
    Column(String),
    /// A template over the columns.
    Template(Box<Template>),
    /// The same for every row.
    Constant(FieldValue),
}

/// The value of a field in a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FieldValue {
    Text(String),
    /// A choice by its number.
    Number(usize),
    Texts(Vec<String>),
    Numbers(Vec<usize>),
}

impl Field {
    /// A field of the task file; `columns` are those of the rows.
    ///
    /// # Errors
    /// The value is neither a text, a number nor a list, or the template is damaged.
    pub(super) fn new(value: &Value, columns: &[String]) -> Result<Self, String> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        let list = |items: &mut dyn Iterator<Item = &Value>| {
            let texts = items.map(text).collect::<Option<Vec<_>>>();
            let texts = texts.ok_or_else(|| "expected a list of texts".to_owned())?;
            Ok(Self::Constant(FieldValue::Texts(texts)))
        };
        match value {
            Value::String(text) if columns.contains(text) => Ok(Self::Column(text.clone())),
            Value::String(text) => {
                Template::new(text).map(|template| Self::Template(Box::new(template)))
            }
            Value::Array(items) => list(&mut items.iter()),
            Value::Object(choices) => list(&mut choices.values()),
            Value::Number(number) => match number.as_u64() {
                Some(number) => Ok(Self::Constant(FieldValue::Number(number as usize))),
                None => Err(format!("{number} is no number of a choice")),
            },
            _ => Err("expected a column, a template, a list or a number".to_owned()),
        }
    }

    /// The value in a row. A text of digits is the number of a choice if the task `has_choices`.
    ///
    /// # Errors
    /// The row lacks the column or something that the template needs, or has another kind of value
    /// there.
    pub(super) fn value(&self, row: &Json, has_choices: bool) -> Result<FieldValue, String> {
        let number = |text: String| match text.parse() {
            Ok(number) if has_choices && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                FieldValue::Number(number)
            }
            _ => FieldValue::Text(text),
        };
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Column(name) => {
                let value = row.get(name).ok_or_else(|| format!("no field `{name}`"))?;
                of_json(value).ok_or_else(|| {
                    format!("`{name}` is neither a text, a number of a choice, nor a list of them")
                })
            }
            Self::Template(template) => {
                let rendered = template.render(row).map_err(|cause| with_columns(&cause, row))?;
                Ok(match rendered {
                    Rendered::Text(text) => number(text),
                    Rendered::List(items) => {
                        let numbers = items.iter().map(|item| item.parse().ok());
                        match numbers.collect::<Option<Vec<usize>>>().filter(|_| has_choices) {
                            Some(numbers) => FieldValue::Numbers(numbers),
                            None => FieldValue::Texts(items),
                        }
                    }
                })
            }
        }
    }

    /// The value in a row, which must be a text.
    pub(super) fn text(&self, row: &Json) -> Result<String, String> {
        match self.value(row, false)? {
            FieldValue::Text(text) => Ok(text),
            FieldValue::Number(number) => Ok(number.to_string()),
            FieldValue::Texts(_) | FieldValue::Numbers(_) => {
                Err("expected a text, found a list".to_owned())
            }
        }
    }
}

/// Adds the columns of a row to the reason why a template cannot be rendered with it.
fn with_columns(cause: &str, row: &Json) -> String {
    let columns = match row {
        Json::Object(columns) => {
            columns.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    };
    format!("{cause}; the row has {columns}")
}

fn of_json(value: &Json) -> Option<FieldValue> {
    match value {
        Json::String(text) => Some(FieldValue::Text(text.clone())),
        Json::Int(number) => usize::try_from(*number).ok().map(FieldValue::Number),
        Json::Bool(value) => Some(FieldValue::Number(usize::from(*value))),
        Json::List(items) => {
            let mut texts = Vec::new();
            let mut numbers = Vec::new();
            for item in items {
                match of_json(item)? {
                    FieldValue::Text(text) => texts.push(text),
                    FieldValue::Number(number) => numbers.push(number),
                    _ => return None,
                }
            }
            match (texts.is_empty(), numbers.is_empty()) {
                (_, true) => Some(FieldValue::Texts(texts)),
                (true, false) => Some(FieldValue::Numbers(numbers)),
                (false, false) => None,
            }
        }
        _ => None,
    }
}
