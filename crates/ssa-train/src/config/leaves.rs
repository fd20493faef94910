//! The types a key can have.

use std::path::PathBuf;

use ssa_data::Packing;
use ssa_kernels::ops::attention::alignment::{AlignmentDirection, AlignmentKind};
use ssa_kernels::ops::attention::selection::SelectionRule;
use ssa_model::{AttentionMode, DocumentMasking, Method, SparseBudget};
use toml::Value;

use super::schema::Leaf;
use super::sections::AlignmentInput;
use crate::optimizer::DecayedWeights;
use crate::schedule::ScheduleShape;
use crate::stream::StreamScope;

impl Leaf for usize {
    fn expected() -> String {
        "a whole number of 0 or more".to_owned()
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

/// A closed set of words.
trait Choice: Copy + PartialEq {
    /// Every word with its meaning.
    fn words() -> Vec<(&'static str, Self)>;
}

impl<T: Choice> Leaf for T {
    fn expected() -> String {
        let words: Vec<String> = T::words().iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("one of {}", words.join(", "))
    }

    fn from_toml(value: &Value) -> Option<Self> {
        let given = value.as_str()?;
        T::words().into_iter().find(|(word, _)| *word == given).map(|(_, choice)| choice)
    }

    fn to_toml(&self) -> Value {
        let word =
            T::words().into_iter().find(|(_, choice)| choice == self).map_or("", |(word, _)| word);
        Value::String(word.to_owned())
    }
}

impl Choice for Method {
    fn words() -> Vec<(&'static str, Self)> {
        Self::ALL.iter().map(|method| (method.name(), *method)).collect()
    }
}

impl Choice for AttentionMode {
    fn words() -> Vec<(&'static str, Self)> {
        Self::ALL.iter().map(|mode| (mode.name(), *mode)).collect()
    }
}

impl Choice for Packing {
    fn words() -> Vec<(&'static str, Self)> {
        Self::ALL.iter().map(|packing| (packing.name(), *packing)).collect()
    }
}

impl Choice for DocumentMasking {
    fn words() -> Vec<(&'static str, Self)> {
        Self::ALL.iter().map(|masking| (masking.name(), *masking)).collect()
    }
}

impl Choice for AlignmentKind {
    fn words() -> Vec<(&'static str, Self)> {
        vec![("smooth_l1", Self::SmoothL1), ("mse", Self::Mse)]
    }
}

impl Choice for AlignmentDirection {
    fn words() -> Vec<(&'static str, Self)> {
        vec![
            ("both", Self::Both),
            ("full_to_sparse", Self::FullToSparse),
            ("sparse_to_full", Self::SparseToFull),
        ]
    }
}

impl Choice for AlignmentInput {
    fn words() -> Vec<(&'static str, Self)> {
        vec![("gated", Self::Gated), ("ungated", Self::Ungated)]
    }
}

impl Choice for StreamScope {
    fn words() -> Vec<(&'static str, Self)> {
        vec![("step", Self::Step), ("micro_batch", Self::MicroBatch), ("layer", Self::Layer)]
    }
}

impl Choice for ScheduleShape {
    fn words() -> Vec<(&'static str, Self)> {
        vec![("cosine", Self::Cosine), ("wsd", Self::Wsd)]
    }
}

impl Choice for DecayedWeights {
    fn words() -> Vec<(&'static str, Self)> {
        vec![("matrices", Self::Matrices), ("layers", Self::Layers), ("all", Self::All)]
    }
}

impl Choice for SelectionRule {
    fn words() -> Vec<(&'static str, Self)> {
        vec![("exact", Self::Exact), ("reference", Self::Reference)]
    }
}
