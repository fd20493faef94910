//! One declaration per key, from which reading, writing, checking and documentation are derived.
//!
//! A section is declared once with [`section!`]: documentation, type and default of each key. The
//! same traversal reads values and finds unknown keys, so a file and a `--set` flag accept the
//! same, and the reference page has every key.

use toml::Value;

use super::ConfigError;

/// A documented key or section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted name, such as `training.steps`.
    pub name: String,
    /// The expected type, such as `a non-negative integer`; `None` for a section.
    pub expected: Option<String>,
    /// The default as TOML; `None` if the key is absent by default.
    pub default: Option<String>,
    /// The documentation.
    pub doc: String,
}

/// The location of a value.
pub(super) struct KeyContext<'a> {
    /// The file or flag.
    pub(super) origin: &'a str,
    /// The dotted key; empty at the root.
    pub(super) key: String,
    /// All keys, to suggest the closest one for an unknown name.
    pub(super) keys: &'a [Key],
}

/// The value of a key: a leaf or a whole section.
pub(super) trait Setting: Sized {
    /// Appends the keys below `name` with their documentation.
    fn describe(name: &str, doc: &str, default: Option<&Self>, keys: &mut Vec<Key>);

    /// Reads and checks a TOML value.
    fn read(value: &Value, context: &KeyContext<'_>) -> Result<Self, ConfigError>;

    /// Appends the keys below `name` that have a value.
    fn write(&self, name: &str, out: &mut Vec<(String, Value)>);
}

/// A [`Setting`] that is a single TOML value.
pub(super) trait Leaf: Sized {
    /// The expected type, with its article.
    fn expected() -> String;
    /// Converts a TOML value; `None` if it has the wrong type.
    fn from_toml(value: &Value) -> Option<Self>;
    /// Converts to a TOML value.
    fn to_toml(&self) -> Value;

    /// Parses a list written as a single string, for types that support it.
    fn list_from_text(_text: &str) -> Option<Vec<Self>> {
        None
    }
}

impl<T: Leaf> Setting for T {
    fn describe(name: &str, doc: &str, default: Option<&Self>, keys: &mut Vec<Key>) {
        keys.push(Key {
            name: name.to_owned(),
            expected: Some(T::expected()),
            default: default.map(|value| value.to_toml().to_string()),
            doc: tidy(doc),
        });
    }

    fn read(value: &Value, context: &KeyContext<'_>) -> Result<Self, ConfigError> {
        T::from_toml(value).ok_or_else(|| context.wrong_type(T::expected(), value))
    }

    fn write(&self, name: &str, out: &mut Vec<(String, Value)>) {
        out.push((name.to_owned(), self.to_toml()));
    }
}

impl<T: Setting> Setting for Option<T> {
    fn describe(name: &str, doc: &str, default: Option<&Self>, keys: &mut Vec<Key>) {
        T::describe(name, doc, default.and_then(Option::as_ref), keys);
    }

    fn read(value: &Value, context: &KeyContext<'_>) -> Result<Self, ConfigError> {
        T::read(value, context).map(Some)
    }

    fn write(&self, name: &str, out: &mut Vec<(String, Value)>) {
        if let Some(value) = self {
            value.write(name, out);
        }
    }
}

impl KeyContext<'_> {
    /// The location of a key inside this section.
    pub(super) fn child(&self, field: &str) -> Self {
        KeyContext { origin: self.origin, key: join(&self.key, field), keys: self.keys }
    }

    /// Checks that the value is a section whose keys are all in `fields`.
    pub(super) fn section<'v>(
        &self,
        value: &'v Value,
        fields: &[&str],
    ) -> Result<&'v toml::Table, ConfigError> {
        let table =
            value.as_table().ok_or_else(|| self.wrong_type("a section".to_owned(), value))?;
        match table.keys().find(|key| !fields.contains(&key.as_str())) {
            None => Ok(table),
            Some(unknown) => {
                let key = join(&self.key, unknown);
                let hint = hint(&key, self.keys);
                Err(ConfigError::UnknownKey { origin: self.origin.to_owned(), key, hint })
            }
        }
    }

    /// The error for a value of the wrong type.
    pub(super) fn wrong_type(&self, expected: String, value: &Value) -> ConfigError {
        let given = match value {
            Value::String(_) => format!("the string {value}"),
            Value::Integer(_) => format!("the integer {value}"),
            Value::Float(_) => format!("the number {value}"),
            Value::Boolean(_) => format!("the boolean {value}"),
            Value::Datetime(_) => format!("the date {value}"),
            Value::Array(_) => format!("the list {value}"),
            Value::Table(_) => "a section".to_owned(),
        };
        ConfigError::WrongType {
            origin: self.origin.to_owned(),
            key: self.key.clone(),
            expected,
            given,
        }
    }
}

/// Declares a section: a struct whose fields are keys, each with documentation and default.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $visibility:vis struct $Section:ident {
            $( $(#[doc = $doc:literal])+ $seen:vis $field:ident: $Type:ty = $default:expr, )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq)]
        $visibility struct $Section {
            $( $(#[doc = $doc])+ $seen $field: $Type, )+
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::schema::Setting for $Section {
            fn describe(
                name: &str,
                doc: &str,
                default: Option<&Self>,
                keys: &mut Vec<$crate::config::schema::Key>,
            ) {
                use $crate::config::schema::{Setting, describe_section, join};
                describe_section(name, doc, keys);
                let standard = Self::default();
                let section = default.unwrap_or(&standard);
                $(
                    let doc = concat!($($doc, "\n"),+);
                    <$Type as Setting>::describe(
                        &join(name, stringify!($field)), doc, Some(&section.$field), keys,
                    );
                )+
            }

            fn read(
                value: &toml::Value,
                context: &$crate::config::schema::KeyContext<'_>,
            ) -> Result<Self, $crate::config::ConfigError> {
                let table = context.section(value, &[$( stringify!($field) ),+])?;
                let mut section = Self::default();
                $(
                    if let Some(value) = table.get(stringify!($field)) {
                        let context = context.child(stringify!($field));
                        section.$field = $crate::config::schema::Setting::read(value, &context)?;
                    }
                )+
                Ok(section)
            }

            fn write(&self, name: &str, out: &mut Vec<(String, toml::Value)>) {
                use $crate::config::schema::{Setting, join};
                $( Setting::write(&self.$field, &join(name, stringify!($field)), out); )+
            }
        }
    };
}
pub(super) use section;

/// Appends the entry of the section; the root has none.
pub(super) fn describe_section(name: &str, doc: &str, keys: &mut Vec<Key>) {
    if !name.is_empty() {
        keys.push(Key { name: name.to_owned(), expected: None, default: None, doc: tidy(doc) });
    }
}

/// `section.field`, or the field alone at the root.
pub(super) fn join(section: &str, field: &str) -> String {
    if section.is_empty() { field.to_owned() } else { format!("{section}.{field}") }
}

/// The section of a dotted name; empty for a name at the root.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(section, _)| section)
}

/// Joins documentation comments into one paragraph.
fn tidy(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names of settings in other programs.
pub(super) const OTHER_NAMES: [(&str, &str); 30] = [
    ("lr", "optimizer.learning_rate"),
    ("min_lr", "optimizer.min_learning_rate"),
    ("warmup", "optimizer.warmup_steps"),
    ("scheduler", "optimizer.schedule"),
    ("lr_scheduler_type", "optimizer.schedule"),
    ("clip", "optimizer.max_grad_norm"),
    ("grad_clip", "optimizer.max_grad_norm"),
    ("gradient_clipping", "optimizer.max_grad_norm"),
    ("epoch", "training.steps"),
    ("epochs", "training.steps"),
    ("num_epochs", "training.steps"),
    ("num_train_epochs", "training.steps"),
    ("max_steps", "training.steps"),
    ("iterations", "training.steps"),
    ("batch", "training.batch_size"),
    ("gradient_accumulation_steps", "training.micro_batch_size"),
    ("gradient_checkpointing", "training.recompute"),
    ("save_steps", "checkpoint.every_steps"),
    ("eval_steps", "monitoring.validate_every"),
    ("budget", "evaluation.budgets"),
    ("top_k", "model.block_counts"),
    ("seq_len", "data.sequence_length"),
    ("seq_length", "data.sequence_length"),
    ("max_length", "data.sequence_length"),
    ("context_length", "data.sequence_length"),
    ("n_layer", "model.num_hidden_layers"),
    ("layers", "model.num_hidden_layers"),
    ("n_head", "model.num_attention_heads"),
    ("heads", "model.num_attention_heads"),
    ("d_model", "model.hidden_size"),
];

/// Suggests a key for an unknown one: the same name in another section, the name for a setting of
/// other programs, or the closest spelling if fewer than 40 % of the letters differ. Otherwise it
/// lists the keys of the section.
pub(super) fn hint(unknown: &str, keys: &[Key]) -> String {
    if let Some(key) = meant(unknown, keys) {
        let remark = match field(unknown) {
            "budget" => " (in training it is model.block_size and model.block_counts)",
            "epoch" | "epochs" | "num_epochs" | "num_train_epochs" => {
                " (a run says at its start how many passes over the text they are)"
            }
            _ => "",
        };
        return format!("did you mean `{key}`?{remark}");
    }
    let section = parent(unknown);
    let siblings = || keys.iter().filter(|key| parent(&key.name) == section);
    let names: Vec<String> = siblings().map(|key| format!("`{}`", field(&key.name))).collect();
    match section {
        "" if siblings().any(|key| key.expected.is_some()) => {
            format!("the keys are {}", names.join(", "))
        }
        "" => format!("the sections are {}", names.join(", ")),
        _ if names.is_empty() => format!("there is no section [{section}]"),
        "run" => format!(
            "the keys of [run] are {}; the directory of a run is the flag --run-dir",
            names.join(", ")
        ),
        _ => format!("the keys of [{section}] are {}", names.join(", ")),
    }
}

/// Longest name in bytes that is compared with the keys; no key is longer.
const LONGEST_COMPARED: usize = 100;

/// The most likely intended key or section.
fn meant(unknown: &str, keys: &[Key]) -> Option<String> {
    let nearness = |key: &Key| strsim::normalized_damerau_levenshtein(&key.name, unknown);
    let nearest = || {
        let key = keys.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)))?;
        (nearness(key) > 0.6).then(|| key.name.clone())
    };
    // The comparison takes the product of both lengths.
    let comparable = unknown.len() <= LONGEST_COMPARED;
    key_named(unknown, keys).or_else(|| comparable.then(nearest).flatten())
}

/// The key with the same last part as `name`, or with this name in other programs.
pub(super) fn key_named(name: &str, keys: &[Key]) -> Option<String> {
    let mut leaves = keys.iter().filter(|key| key.expected.is_some());
    let same = leaves.find(|key| field(&key.name) == field(name)).map(|key| key.name.clone());
    let known = |name: &str| keys.iter().any(|key| key.name == name);
    let other = || OTHER_NAMES.iter().find(|(other, key)| *other == field(name) && known(key));
    same.or_else(|| other().map(|(_, key)| (*key).to_owned()))
}

/// The last part of a dotted name.
fn field(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}
