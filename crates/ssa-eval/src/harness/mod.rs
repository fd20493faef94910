//! Benchmark tasks, with the prompts, few-shot draws and scores of EleutherAI's
//! lm-evaluation-harness 0.4.13.
//!
//! ```text
//! Task::find       name or YAML file        -> Task: where rows are, templates, metrics
//! Task::prepare    rows, few-shot examples  -> PreparedTask: requests as text and as tokens
//! Evaluator::run   requests                 -> answers: log-likelihoods, greedy flags, texts
//! PreparedTask::result   answers            -> TaskResult: metrics with standard errors
//! ```
//!
//! There are three kinds of requests: the log-likelihood of a continuation after a context, the
//! rolling log-likelihood of a whole text, and the text that a model generates. `multiple_choice`
//! tasks are log-likelihoods of several continuations, or of one continuation after several
//! contexts.
//!
//! Rows come from files, or are [generated](GridSettings) at given lengths and depths.
//!
//! **Source.** `lm_eval/api/task.py`, `api/samplers.py`, `api/metrics.py`, `api/model.py` and
//! `models/huggingface.py` of release 0.4.13. Where a task of the harness calls a Python function,
//! `process_docs` names one of the [preprocessors](Preprocessor) instead.
//!
//! **Determinism.** On the CPU an answer depends on its request alone, so neither the batch nor the
//! order of documents changes a result.

mod answers;
mod bootstrap;
mod cells;
mod encode;
mod evaluator;
mod examples;
mod field;
mod generated;
mod journal;
mod metric;
mod output_type;
mod prepared;
mod preprocess;
mod prompts;
mod python_random;
mod request;
mod request_encoder;
mod results;
mod rows;
mod scored;
mod scores;
mod size;
mod target;
mod task;
mod task_file;
mod text_scores;

pub use answers::Answer;
pub use cells::cells_tables;
pub use evaluator::{Evaluator, GenerationSettings, InferenceMode};
pub use generated::{Cell, GeneratedFacts, GridSettings};
pub use journal::Journal;
pub use metric::Metric;
pub use output_type::OutputType;
pub use prepared::{PrepareSettings, PreparedTask};
pub use preprocess::Preprocessor;
pub use request::Truncation;
pub use results::{CellResult, MetricResult, Sample, SampleRequest, TaskResult, results_table};
pub use rows::RowsOf;
pub use task::{Task, built_in_tasks};
