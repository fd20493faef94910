//! Measurements on held-out text between two steps.
//!
//! The caller declares measurements as a struct; its field names become the names in
//! `metrics.jsonl` and in TensorBoard. A new measurement is therefore declared in one place, where
//! it is measured.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Named groups of numbers, such as `probe` and `validation`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Measurements(Map<String, Value>);

impl Measurements {
    /// Creates measurements from the fields of a struct.
    ///
    /// # Errors
    /// If the struct does not serialize to an object.
    pub fn new(measured: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::from_value(serde_json::to_value(measured)?).map(Self)
    }

    /// Converts the measurements back to the struct.
    ///
    /// # Errors
    /// If a field is missing or has a different type.
    pub fn view<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_value(Value::Object(self.0.clone()))
    }

    /// The groups by name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, group)| (name.as_str(), group))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::LoggedStep;
    use crate::metrics::tests::step;

    /// The measurements of a run with full attention, and a number unknown to all other code.
    pub(crate) fn measured() -> Measurements {
        let attention = |sparsity: f64| {
            let distance = 0.1;
            json!({ "attention_sparsity": sparsity, "entropy_bits": 3.0, "distance": distance })
        };
        let under = |mode: &str| {
            let layers = [attention(0.25), attention(0.75)];
            json!({ "mode": mode, "overall": attention(0.5), "layers": layers })
        };
        let loss = |bits: f64| json!({ "nats_per_token": 1.5, "bits_per_byte": bits });
        let groups = json!({
            "probe": {
                "tokens": 64,
                "full_streams": 0.5,
                "kl_full_sparse": 0.01,
                "hidden_states": [under("full"), under("sparse")],
            },
            "validation": {
                "targets": 63,
                "full": loss(2.0),
                "sparse": loss(2.25),
                "kl_full_sparse": 0.02,
                "best": true,
            },
            "tasks": { "accuracy": 0.625, "questions": 8 },
        });
        Measurements::new(&groups).unwrap()
    }

    #[test]
    fn a_line_of_metrics_has_all_measurements() {
        let logged = LoggedStep { metrics: step(3), measured: measured() };
        let line = serde_json::to_string(&logged).unwrap();
        assert!(line.ends_with(r#""tasks":{"accuracy":0.625,"questions":8}}"#), "{line}");
        assert_eq!(serde_json::from_str::<LoggedStep>(&line).unwrap(), logged);
    }

    #[test]
    fn a_struct_is_read_back_as_it_was_recorded() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Tasks {
            accuracy: f64,
            questions: usize,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Measured {
            tasks: Tasks,
        }
        let view: Measured = measured().view().unwrap();
        assert_eq!(view, Measured { tasks: Tasks { accuracy: 0.625, questions: 8 } });
        let text = serde_json::to_string(&Measurements::new(&view).unwrap()).unwrap();
        assert_eq!(text, r#"{"tasks":{"accuracy":0.625,"questions":8}}"#);
        let missing = Measurements::default().view::<Measured>().unwrap_err().to_string();
        assert!(missing.contains("missing field `tasks`"), "{missing}");
        let scalar = Measurements::new(&0.5).unwrap_err().to_string();
        assert!(scalar.contains("invalid type"), "{scalar}");
    }
}
