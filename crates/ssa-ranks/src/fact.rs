//! What all ranks of a run must share.

use serde::{Deserialize, Serialize};

/// A property of a rank that must be the same on all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is, such as `program version`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What to do if it differs.
    pub remedy: String,
}

impl Fact {
    /// A fact.
    pub fn new(name: &str, value: impl ToString, remedy: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_string(), remedy: remedy.to_owned() }
    }

    /// The message about the ranks whose fact differs from that of rank 0; `None` if all agree.
    pub(crate) fn difference(&self, others: &[(usize, &str, &str)]) -> Option<String> {
        let differing: Vec<String> = others
            .iter()
            .filter(|(_, _, value)| *value != self.value)
            .map(|(rank, host, value)| format!("rank {rank} on {host} has {value}"))
            .collect();
        let Self { name, value, remedy } = self;
        (!differing.is_empty()).then(|| {
            let differing = differing.join(", ");
            format!("the {name} differs: rank 0 has {value}, {differing}\nhint: {remedy}")
        })
    }
}
