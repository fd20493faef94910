//! The types a key can have.

use std::path::PathBuf;

use ssa_data::Packing;
use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, DocumentMasking, Method, SparseBudget};
use toml::Value;

use super::schema::Leaf;
use super::sections::{AlignmentInput, RopeType};
use crate::optimizer::DecayedWeights;
use crate::schedule::ScheduleShape;
use crate::stream::StreamScope;

impl Leaf for usize {
    fn expected() -> String {
        "a non-negative integer".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|number| number.try_into().ok())
    }

    fn to_toml(&self) -> Value {
        Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Leaf for u64 {
    fn expected() -> String {
        usize::expected()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|number| number.try_into().ok())
    }

    fn to_toml(&self) -> Value {
        Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Leaf for f64 {
    fn expected() -> String {
        "a finite number".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as Self));
        number.filter(|number| number.is_finite())
    }

    fn to_toml(&self) -> Value {
        Value::Float(*self)
    }
}

impl Leaf for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn to_toml(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Leaf for String {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn to_toml(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Leaf for PathBuf {
    fn expected() -> String {
        "a path, written as a string".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn to_toml(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

impl Leaf for SparseBudget {
    fn expected() -> String {
        "a budget such as \"16x4\": block size x number of blocks, both at least 1".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }

    fn to_toml(&self) -> Value {
        Value::String(self.to_string())
    }

    /// As on the command line: `16x4,16x8`.
    fn list_from_text(text: &str) -> Option<Vec<Self>> {
        text.split(',').map(|budget| budget.trim().parse().ok()).collect()
    }
}

impl<T: Leaf> Leaf for Vec<T> {
    fn expected() -> String {
        format!("a list in brackets, each entry {}", T::expected())
    }

    fn from_toml(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => T::list_from_text(text),
            value => value.as_array()?.iter().map(T::from_toml).collect(),
        }
    }

    fn to_toml(&self) -> Value {
        Value::Array(self.iter().map(T::to_toml).collect())
    }
}

/// Enums whose values have names.
macro_rules! named_leaves {
    ($($type:ty),+ $(,)?) => {
        $(impl Leaf for $type {
            fn expected() -> String {
                let names: Vec<String> =
                    Self::ALL.iter().map(|value| format!("\"{value}\"")).collect();
                format!("one of {}", names.join(", "))
            }

            fn from_toml(value: &Value) -> Option<Self> {
                value.as_str()?.parse().ok()
            }

            fn to_toml(&self) -> Value {
                Value::String(self.to_string())
            }
        })+
    };
}

named_leaves!(
    Method,
    AttentionMode,
    Packing,
    DocumentMasking,
    AlignmentKind,
    AlignmentDirection,
    AlignmentInput,
    StreamScope,
    ScheduleShape,
    RopeType,
    DecayedWeights,
    SelectionRule,
);
