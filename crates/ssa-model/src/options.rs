//! The words of the method: which attentions a model has and how one run uses them.

use ssa_kernels::ops::attention::selection::{SelectionOptions, SelectionRule};

use crate::{ModelConfig, ModelError};

/// Gives an enum its names: [`std::fmt::Display`], [`std::str::FromStr`] and serde agree on one
/// table.
macro_rules! names {
    ($type:ident, $what:literal, { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in settings, on the command line and in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = ModelError;

            fn from_str(text: &str) -> Result<Self, ModelError> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(ModelError::UnknownName {
                        what: $what,
                        given: text.to_owned(),
                        expected: vec![$($name),+],
                    }),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The training method, which is also the set of attentions the model was made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// Full attention only.
    Full,
    /// Sparse attention only.
    Moba,
    /// Compression, selection and sliding window, each with its own gate.
    Nsa,
    /// One stream of full and one of sparse attention, aligned with each other.
    #[default]
    Ssa,
}

names!(Method, "attention method", { Full => "full", Moba => "moba", Nsa => "nsa", Ssa => "ssa" });

/// Which of its attentions a model runs: the stream of a training step, the mode of inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionMode {
    /// Over all earlier tokens.
    Full,
    /// Over the tokens of the selected blocks.
    Sparse,
}

names!(AttentionMode, "attention mode", { Full => "full", Sparse => "sparse" });

/// Which streams restart at the border of a document within a packed row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DocumentMasking {
    /// Both: no token sees another document.
    #[default]
    Both,
    /// Full attention only, as in the released training code: the sparse stream sees whole rows.
    FullOnly,
}

names!(DocumentMasking, "document masking", { Both => "both", FullOnly => "full_only" });

/// How the attentions of a model run: what a configuration was trained with, or any variant of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOptions {
    /// The set of attentions.
    pub method: Method,
    /// Which of them runs.
    pub mode: AttentionMode,
    /// Block size, number of blocks and rule of selection.
    pub selection: SelectionOptions,
    /// Tokens of the sliding window of [`Method::Nsa`].
    pub window_size: usize,
    /// Which streams respect document borders.
    pub document_masking: DocumentMasking,
}

impl ModelConfig {
    /// The options a model was trained with, under the exact selection rule.
    pub fn attention_options(&self, mode: AttentionMode) -> AttentionOptions {
        AttentionOptions {
            method: self.attention_method,
            mode,
            selection: SelectionOptions {
                block_size: self.block_size,
                block_counts: self.block_counts,
                rule: SelectionRule::Exact,
            },
            window_size: self.window_size,
            document_masking: DocumentMasking::Both,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &method in Method::ALL {
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(json, format!("\"{method}\""));
            assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method);
        }
        assert_eq!(serde_json::to_string(&DocumentMasking::FullOnly).unwrap(), "\"full_only\"");
        assert_eq!(format!("{:>8}|", AttentionMode::Sparse), "  sparse|");
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones() {
        let error = "spars".parse::<AttentionMode>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown attention mode `spars`, expected `full` or `sparse` (did you mean `sparse`?)"
        );
        let error = serde_json::from_str::<Method>("\"dense\"").unwrap_err().to_string();
        assert!(error.contains("`full`, `moba`, `nsa` or `ssa`"), "{error}");
        assert!(!error.contains("did you mean"), "{error}");
    }
}
