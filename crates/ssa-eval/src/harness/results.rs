//! Results of tasks.

use serde::Serialize;
use ssa_infer::Budget;
use ssa_model::AttentionMode;
use ssa_report::{Column, NONE, Row, Table};

use super::answers::Answer;
use super::evaluator::InferenceMode;
use super::generated::{Cell, GeneratedFacts};
use super::metric::Metric;
use super::prepared::PreparedTask;
use super::request::{PreparedDocument, Request, Truncation};
use crate::distinct::distinct;

/// The results of a task with one attention.
#[derive(Clone, Debug, Serialize)]
pub struct TaskResult {
    /// The name of the task.
    pub task: String,
    /// Its version.
    pub version: Option<String>,
    /// Few-shot examples before each document.
    pub num_fewshot: usize,
    /// Full or sparse attention.
    pub attention: AttentionMode,
    /// The budget of sparse attention.
    pub budget: Option<Budget>,
    /// Number of documents.
    pub documents: usize,
    /// What did not fit into the model's context.
    pub truncated: Truncation,
    /// The metrics, in the order of the task.
    pub metrics: Vec<MetricResult>,
    /// How documents were generated, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedFacts>,
    /// By length and depth, if documents were generated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellResult>,
    /// Every document, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<Sample>>,
}

/// A metric over all documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricResult {
    /// The metric.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// Its standard error, for means and for perplexities of targets.
    pub stderr: Option<f64>,
}

/// The results of the documents of a length and a depth.
#[derive(Clone, Debug, Serialize)]
pub struct CellResult {
    /// Their place in the grid.
    #[serde(flatten)]
    pub cell: Cell,
    /// Number of documents.
    pub documents: usize,
    /// Documents that did not fit into the model's context.
    pub truncated: usize,
    /// The metrics, in the order of the task.
    pub metrics: Vec<MetricResult>,
}

/// The requests of a document with their answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The number of the row, from 0.
    pub document: usize,
    /// The requests.
    pub requests: Vec<SampleRequest>,
    /// The score of each metric: a log-likelihood, or 0 or 1.
    pub scores: Vec<(Metric, f64)>,
}

/// A request with its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleRequest {
    /// The context; empty for a rolling log-likelihood.
    pub context: String,
    /// What is scored after it; `None` if a text is generated.
    pub continuation: Option<String>,
    /// What the model says.
    pub answer: Answer,
}

impl PreparedTask {
    /// Scores the answers, which are those of every document in order.
    pub fn result(
        &self,
        mode: InferenceMode,
        answers: &[Vec<Answer>],
        with_samples: bool,
    ) -> TaskResult {
        let samples = self.documents.iter().zip(answers).enumerate();
        let samples = samples.map(|(number, (document, answers))| Sample {
            document: number,
            requests: document
                .requests
                .iter()
                .zip(answers)
                .map(|(request, answer)| sample_request(request, answer))
                .collect(),
            scores: self
                .metrics
                .iter()
                .map(|entry| (entry.metric, entry.score(&document.target, answers).value))
                .collect(),
        });
        TaskResult {
            task: self.name.clone(),
            version: self.version.clone(),
            num_fewshot: self.num_fewshot,
            attention: mode.mode,
            budget: mode.budget,
            documents: self.documents.len(),
            truncated: self.truncation,
            metrics: self.metrics_of(self.documents.iter().zip(answers)),
            generated: self.generated.clone(),
            cells: self.cells(answers),
            samples: with_samples.then(|| samples.collect()),
        }
    }

    /// The metrics over some documents with their answers.
    pub(super) fn metrics_of<'a>(
        &self,
        documents: impl Iterator<Item = (&'a PreparedDocument, &'a Vec<Answer>)> + Clone,
    ) -> Vec<MetricResult> {
        let metrics = self.metrics.iter().map(|entry| {
            let score = |(document, answers): (&PreparedDocument, &Vec<Answer>)| {
                entry.score(&document.target, answers)
            };
            let scores: Vec<_> = documents.clone().map(score).collect();
            let (value, stderr) = entry.aggregate(&scores);
            MetricResult { metric: entry.metric, value, stderr }
        });
        metrics.collect()
    }
}

impl TaskResult {
    /// The attention.
    pub(super) fn mode(&self) -> InferenceMode {
        InferenceMode { mode: self.attention, budget: self.budget }
    }
}

fn sample_request(request: &Request, answer: &Answer) -> SampleRequest {
    let (context, continuation) = match request {
        Request::Continuation { context, continuation, .. } => {
            (context.clone(), Some(continuation.clone()))
        }
        Request::Rolling { text, .. } => (String::new(), Some(text.clone())),
        Request::Generation { context, .. } => (context.clone(), None),
    };
    SampleRequest { context, continuation, answer: answer.clone() }
}

/// One row for each task, metric and attention: the attentions of a metric are together.
pub fn results_table(results: &[TaskResult]) -> Table {
    let columns = vec![
        Column::text("task"),
        Column::number("version").rank(4),
        Column::number("shots").rank(2),
        Column::text("metric"),
        Column::text("attention"),
        Column::number("budget"),
        Column::number("value"),
        Column::number("\u{b1}").rank(1),
        Column::number("documents").rank(3),
    ];
    let mut rows = Vec::new();
    for task in distinct(results.iter().map(|result| result.task.as_str())) {
        let of_task: Vec<&TaskResult> = results.iter().filter(|one| one.task == task).collect();
        for index in 0..of_task.first().map_or(0, |result| result.metrics.len()) {
            rows.extend(of_task.iter().map(|result| row(result, &result.metrics[index])));
        }
    }
    Table::new(columns, rows)
}

fn row(result: &TaskResult, metric: &MetricResult) -> Row {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    Row::new(vec![
        result.task.clone(),
        or_none(result.version.clone()),
        result.num_fewshot.to_string(),
        metric.metric.to_string(),
        result.attention.to_string(),
        or_none(result.budget.map(|budget| budget.to_string())),
        format!("{:.4}", metric.value),
        or_none(metric.stderr.map(|stderr| format!("{stderr:.4}"))),
        result.documents.to_string(),
    ])
}
