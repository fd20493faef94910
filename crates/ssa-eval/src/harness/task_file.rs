//! The keys of a task file, as in lm-evaluation-harness.

use serde::Deserialize;
use serde_json::Value;

use super::generated::Generator;
use super::metric::{Aggregation, Metric};
use super::output_type::OutputType;
use super::preprocess::Preprocessor;
use super::request::Truncate;

/// How few-shot examples are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sampler {
    /// At random, without replacement.
    #[default]
    Default,
    /// The first rows, in order.
    FirstN,
}

ssa_names::names!(Sampler: "fewshot_config.sampler" { Default = "default", FirstN = "first_n" });

/// The content of a task file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskFile {
    pub(super) task: String,
    pub(super) dataset_path: Option<String>,
    pub(super) dataset_name: Option<String>,
    #[serde(default)]
    pub(super) dataset_kwargs: Option<DatasetArguments>,
    pub(super) training_split: Option<String>,
    pub(super) validation_split: Option<String>,
    pub(super) test_split: Option<String>,
    pub(super) fewshot_split: Option<String>,
    #[serde(default)]
    pub(super) fewshot_config: Option<FewshotConfig>,
    pub(super) process_docs: Option<Preprocessor>,
    /// Documents that are generated, instead of rows. Not a key of the harness.
    pub(super) generator: Option<Generator>,
    /// What is dropped of contexts that do not fit. Not a key of the harness.
    #[serde(default)]
    pub(super) truncate: Truncate,
    #[serde(default)]
    pub(super) output_type: OutputType,
    #[serde(default)]
    pub(super) description: String,
    pub(super) doc_to_text: Value,
    pub(super) doc_to_target: Value,
    pub(super) doc_to_choice: Option<Value>,
    /// The text whose words and bytes perplexities divide by; `doc_to_target` by default. In the
    /// harness a Python function does this.
    pub(super) doc_to_counted_text: Option<String>,
    #[serde(default = "target_delimiter")]
    pub(super) target_delimiter: String,
    #[serde(default = "fewshot_delimiter")]
    pub(super) fewshot_delimiter: String,
    pub(super) num_fewshot: Option<usize>,
    pub(super) metric_list: Option<Vec<MetricEntry>>,
    #[serde(default)]
    pub(super) generation_kwargs: Option<GenerationArguments>,
    #[serde(default)]
    pub(super) repeats: Option<usize>,
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
    /// Keys that change no result.
    #[serde(rename = "task_alias")]
    _task_alias: Option<Value>,
    #[serde(rename = "tag")]
    _tag: Option<Value>,
    #[serde(rename = "group")]
    _group: Option<Value>,
    #[serde(rename = "should_decontaminate")]
    _should_decontaminate: Option<Value>,
    #[serde(rename = "doc_to_decontamination_query")]
    _doc_to_decontamination_query: Option<Value>,
}

fn target_delimiter() -> String {
    " ".to_owned()
}

fn fewshot_delimiter() -> String {
    "\n\n".to_owned()
}

/// Where rows come from, besides `dataset_path`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetArguments {
    /// Files by split, or the files of the only split.
    pub(super) data_files: Option<Value>,
    #[serde(rename = "trust_remote_code")]
    _trust_remote_code: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FewshotConfig {
    #[serde(default)]
    pub(super) sampler: Sampler,
    pub(super) split: Option<String>,
}

/// An entry of `metric_list`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricEntry {
    pub(super) metric: Metric,
    pub(super) aggregation: Option<Aggregation>,
    #[serde(default)]
    pub(super) ignore_case: bool,
    #[serde(default)]
    pub(super) ignore_punctuation: bool,
    #[serde(default)]
    pub(super) ignore_numbers: bool,
    /// Whether texts are compared as LongBench and SQuAD normalize answers. Not a key of the
    /// harness.
    #[serde(default)]
    pub(super) normalize_answer: bool,
    /// Known of every metric.
    #[serde(rename = "higher_is_better")]
    _higher_is_better: Option<bool>,
}

impl MetricEntry {
    /// The entry of a metric without settings.
    pub(super) fn of(metric: Metric) -> Self {
        Self {
            metric,
            aggregation: None,
            ignore_case: false,
            ignore_punctuation: false,
            ignore_numbers: false,
            normalize_answer: false,
            _higher_is_better: None,
        }
    }
}

/// How a text is generated.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GenerationArguments {
    pub(super) until: Option<OneOrMore>,
    #[serde(alias = "max_new_tokens", alias = "max_tokens", alias = "max_completion_tokens")]
    pub(super) max_gen_toks: Option<usize>,
    pub(super) do_sample: Option<bool>,
    pub(super) temperature: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

/// What the authors say about a task; only the version is used.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Metadata {
    pub(super) version: Option<Value>,
}
