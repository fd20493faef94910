//! From rows to requests.

use ssa_data::{Row, Tokenizer};
use ssa_files::Sha256;
use ssa_text::Json;

use super::encode::PromptEncoder;
use super::examples::ExampleSampler;
use super::generated::{GeneratedFacts, GeneratedRows, GridSettings};
use super::output_type::OutputType;
use super::prompts::{Fields, Prompts};
use super::request::{Generation, PreparedDocument, Truncation};
use super::request_encoder::{Fault, RequestEncoder};
use super::rows::RowsOf;
use super::task::Task;
use super::task_file::{MetricEntry, OneOrMore};
use crate::{EvalError, Result};

/// The most tokens to generate if a task does not say.
const MAX_GENERATED: usize = 256;

/// How a task is prepared.
#[derive(Clone, Debug)]
pub struct PrepareSettings<'a> {
    /// Local rows.
    pub rows: &'a [RowsOf],
    /// Few-shot examples, unless the task wants none; by default as the task says.
    pub num_fewshot: Option<usize>,
    /// Only the first documents.
    pub limit: Option<usize>,
    /// Seed of the few-shot draws.
    pub seed: u64,
    /// Tokens of the model's context.
    pub context_length: usize,
    /// Lengths, depths and samples of generated documents.
    pub grid: GridSettings,
}

/// A task as requests to a model.
#[derive(Debug)]
pub struct PreparedTask {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) num_fewshot: usize,
    pub(super) metrics: Vec<MetricEntry>,
    pub(super) documents: Vec<PreparedDocument>,
    pub(super) truncation: Truncation,
    pub(super) generation: Generation,
    pub(super) generated: Option<GeneratedFacts>,
}

impl PreparedTask {
    /// The name of the task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Few-shot examples before each document.
    pub fn num_fewshot(&self) -> usize {
        self.num_fewshot
    }

    /// What did not fit into the model's context.
    pub fn truncation(&self) -> Truncation {
        self.truncation
    }

    /// How documents were generated, if they were.
    pub fn generated(&self) -> Option<&GeneratedFacts> {
        self.generated.as_ref()
    }

    /// A checksum of all requests, as text and as tokens.
    pub fn sha256(&self) -> String {
        Sha256::of(format!("{:?}{:?}", self.documents, self.generation).as_bytes()).to_string()
    }
}

impl Task {
    /// Reads the rows and makes the requests: prompts with few-shot examples, encoded, and cut from
    /// the left to the model's context.
    ///
    /// # Errors
    /// [`EvalError::Task`] names the row that cannot be used, and the field; [`EvalError::Data`]
    /// for rows that cannot be read or encoded.
    pub fn prepare(
        &self,
        settings: &PrepareSettings<'_>,
        tokenizer: &Tokenizer,
    ) -> Result<PreparedTask> {
        let split = self.evaluated_split()?;
        let generation = self.generation();
        let mut requests = RequestEncoder {
            encoder: PromptEncoder::new(tokenizer)?,
            context_length: settings.context_length,
            max_generated: generation.max_tokens,
            truncate: self.file.truncate,
            truncation: Truncation::default(),
        };
        let generated = match &self.file.generator {
            Some(it) => Some(self.generate(it, settings.rows, &settings.grid, &mut requests)?),
            None => None,
        };
        let (rows, cells, generated) = match generated {
            Some(GeneratedRows { rows, cells, facts }) => (rows, cells, Some(facts)),
            None => (self.processed(split, settings.rows)?, Vec::new(), None),
        };
        let num_fewshot = match (self.file.output_type, self.file.num_fewshot) {
            (OutputType::LogLikelihoodRolling, _) | (_, Some(0)) => 0,
            _ if generated.is_some() => 0,
            (_, own) => settings.num_fewshot.or(own).unwrap_or(0),
        };
        let example_split = self.example_split()?;
        let examples = match num_fewshot {
            0 => Vec::new(),
            _ if example_split == split => rows.clone(),
            _ => self.processed(example_split, settings.rows)?,
        };
        let pool: Vec<Json> = examples.iter().map(|row| row.fields.clone()).collect();
        let sampler = self.file.fewshot_config.clone().unwrap_or_default().sampler;
        let mut prompts = Prompts {
            task: self,
            fields: Fields::new(self, &rows[0].fields)?,
            examples: ExampleSampler::new(sampler, &pool, settings.seed),
            pool: &pool,
            num_fewshot,
        };
        let count = settings.limit.unwrap_or(rows.len()).min(rows.len());
        let mut documents = Vec::with_capacity(count);
        for (index, row) in rows[..count].iter().enumerate() {
            let wrong = |cause: String| EvalError::task(&row.name, cause, "");
            let prompt = prompts.of(&row.fields).map_err(wrong)?;
            let document = requests.of(self.file.output_type, prompt);
            let mut document = document.map_err(|fault| match fault {
                Fault::Row(cause) => wrong(cause),
                Fault::Text(error) => error.in_document(&row.name).into(),
            })?;
            document.cell = cells.get(index).copied();
            documents.push(document);
        }
        Ok(PreparedTask {
            name: self.file.task.clone(),
            version: self.version(),
            num_fewshot,
            metrics: self.metrics.clone(),
            documents,
            truncation: requests.truncation,
            generation,
            generated,
        })
    }

    /// The rows of a split with the fields of the preprocessor.
    fn processed(&self, split: &str, given: &[RowsOf]) -> Result<Vec<Row>> {
        let mut rows = self.rows(split, given)?;
        if let Some(preprocessor) = self.file.process_docs {
            for row in &mut rows {
                let applied = preprocessor.apply(&mut row.fields);
                applied.map_err(|cause| EvalError::task(&row.name, cause, ""))?;
            }
        }
        Ok(rows)
    }

    fn generation(&self) -> Generation {
        let arguments = self.file.generation_kwargs.clone().unwrap_or_default();
        let until = arguments.until.map(OneOrMore::into_vec);
        Generation {
            until: until.unwrap_or_else(|| vec![self.file.fewshot_delimiter.clone()]),
            max_tokens: arguments.max_gen_toks.unwrap_or(MAX_GENERATED),
        }
    }
}
