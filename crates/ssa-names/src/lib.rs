//! Names of enum values in settings, flags, files and messages.
//!
//! [`names!`] gives an enum its table of names. [`std::fmt::Display`], [`std::str::FromStr`] and
//! serde are derived from it, and through [`Named`] the command-line flags and configuration keys.
//! A type that is not an enum implements [`Named`] itself and derives the rest with
//! [`name_traits!`].

#[doc(hidden)]
pub use serde;

/// A type with a fixed set of named values.
pub trait Named: Copy + 'static {
    /// What the names describe, for messages: `attention mode`.
    const KIND: &'static str;
    /// Every value, in the order in which messages list them.
    const ALL: &'static [Self];

    /// The name in settings, on the command line, in files and in reports.
    fn name(self) -> &'static str;

    /// The value of a name from an older version of the program.
    fn from_former_name(_name: &str) -> Option<Self> {
        None
    }

    /// Parses a name.
    ///
    /// # Errors
    /// [`UnknownName`] lists the valid names.
    fn from_name(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.iter().copied().find(|value| value.name() == name);
        found.or_else(|| Self::from_former_name(name)).ok_or_else(|| UnknownName {
            kind: Self::KIND,
            given: name.to_owned(),
            expected: Self::ALL.iter().map(|value| value.name()).collect(),
        })
    }
}

/// An unknown name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", self.message(), self.hint())]
pub struct UnknownName {
    /// What the names describe.
    pub kind: &'static str,
    /// The given text.
    pub given: String,
    /// The valid names.
    pub expected: Vec<&'static str>,
}

/// Names at least this similar (Jaro-Winkler) are suggested.
const SIMILAR: f64 = 0.8;
/// Bytes of the longest name that is compared: no name is longer.
const LONGEST_COMPARED: usize = 100;

impl UnknownName {
    /// The message without its hint, to embed in another message.
    pub fn message(&self) -> String {
        format!("unknown {} `{}`, expected {}", self.kind, self.given, list(&self.expected))
    }

    /// The hint line with the most similar name; empty if none is similar.
    fn hint(&self) -> String {
        match nearest(&self.given, self.expected.iter().copied()) {
            Some(name) => format!("\nhint: did you mean `{name}`?"),
            None => String::new(),
        }
    }
}

/// The most similar of the `expected` names, if one is similar.
pub fn nearest<'a>(given: &str, expected: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The comparison takes the product of both lengths.
    if given.len() > LONGEST_COMPARED {
        return None;
    }
    let given = given.to_lowercase();
    let similarity = |name: &str| strsim::jaro_winkler(&given, name);
    let nearest = expected.into_iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(nearest) >= SIMILAR).then_some(nearest)
}

/// "`a`, `b` or `c`".
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

/// Names the values of an enum: [`Named`], `Display`, `FromStr`, serde, and an inherent `ALL` and
/// `name`.
///
/// ```
/// # #[derive(Clone, Copy, Debug, PartialEq)]
/// enum Packing {
///     Concat,
///     BestFit,
/// }
///
/// // Files of older versions say `best_fit`.
/// ssa_names::names!(Packing: "packing" { Concat = "concat", BestFit = "best-fit" | "best_fit" });
///
/// assert_eq!("best-fit".parse(), Ok(Packing::BestFit));
/// assert_eq!(Packing::BestFit.to_string(), "best-fit");
/// ```
#[macro_export]
macro_rules! names {
    ($type:ident: $kind:literal {
        $($variant:ident = $name:literal $(| $former:literal)*),+ $(,)?
    }) => {
        #[allow(unreachable_pub, reason = "the type may be private")]
        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in settings, on the command line, in files and in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl $crate::Named for $type {
            const KIND: &'static str = $kind;
            const ALL: &'static [Self] = Self::ALL;

            fn name(self) -> &'static str {
                self.name()
            }

            fn from_former_name(name: &str) -> Option<Self> {
                match name {
                    $($($former => Some(Self::$variant),)*)+
                    _ => None,
                }
            }
        }

        $crate::name_traits!($type);
    };
}

/// Implements `Display`, `FromStr`, `Serialize` and `Deserialize` for a [`Named`] type.
#[macro_export]
macro_rules! name_traits {
    ($type:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::Named::name(*self))
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(text: &str) -> Result<Self, $crate::UnknownName> {
                $crate::Named::from_name(text)
            }
        }

        impl $crate::serde::Serialize for $type {
            fn serialize<S: $crate::serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($crate::Named::name(*self))
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let name = <String as $crate::serde::Deserialize>::deserialize(deserializer)?;
                // The parser appends the position, so no hint can follow.
                <Self as $crate::Named>::from_name(&name).map_err(|unknown| {
                    <D::Error as $crate::serde::de::Error>::custom(unknown.message())
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Mode {
        Full,
        Sparse,
        FullOnly,
    }

    crate::names!(Mode: "attention mode" {
        Full = "full",
        Sparse = "sparse",
        FullOnly = "full-only" | "full_only",
    });

    #[test]
    fn names_round_trip() {
        for &mode in Mode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(json, format!("\"{mode}\""));
            assert_eq!(serde_json::from_str::<Mode>(&json).unwrap(), mode);
        }
        assert_eq!(format!("{:>8}|", Mode::Sparse), "  sparse|");
    }

    #[test]
    fn a_former_name_is_read_and_never_written() {
        assert_eq!("full_only".parse(), Ok(Mode::FullOnly));
        assert_eq!(serde_json::from_str::<Mode>("\"full_only\"").unwrap().name(), "full-only");
    }

    #[test]
    fn an_unknown_name_lists_the_valid_ones_and_the_closest() {
        let error = "spars".parse::<Mode>().unwrap_err().to_string();
        let expected = "unknown attention mode `spars`, expected `full`, `sparse` or `full-only`\n\
                        hint: did you mean `sparse`?";
        assert_eq!(error, expected);
        assert!(!"dense".parse::<Mode>().unwrap_err().to_string().contains("hint"));
    }

    #[test]
    fn a_parser_may_append_the_position() {
        let error = serde_json::from_str::<Mode>("\"spars\"").unwrap_err().to_string();
        let expected = "unknown attention mode `spars`, expected `full`, `sparse` or `full-only`";
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hint"), "{error}");
    }
}
