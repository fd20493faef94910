//! The documents of a grid.

use std::path::PathBuf;

use ssa_data::{Row, read_documents};
use ssa_report::number::{counted, grouped};
use ssa_text::Json;

use super::super::examples::ExampleSampler;
use super::super::prompts::{Fields, Prompts};
use super::super::request_encoder::RequestEncoder;
use super::super::rows::RowsOf;
use super::super::task::Task;
use super::super::task_file::Sampler;
use super::fit::most_units;
use super::haystack::Haystack;
use super::{Cell, GeneratedFacts, Generator, GridSettings, Sample};
use crate::{EvalError, Result};

/// Documents are as long as the model's context, at most this: RULER's shortest.
const DEFAULT_LENGTH: usize = 4096;
const DEFAULT_DEPTHS: [usize; 5] = [0, 25, 50, 75, 100];

/// Generated rows with their places in the grid.
pub(in super::super) struct GeneratedRows {
    pub(in super::super) rows: Vec<Row>,
    pub(in super::super) cells: Vec<Cell>,
    pub(in super::super) facts: GeneratedFacts,
}

impl Task {
    /// Generates the documents, sample after sample: the first documents cover the whole grid.
    ///
    /// # Errors
    /// [`EvalError::Task`] if a length has no room for the question, or if there is no text;
    /// [`EvalError::Data`] if a text cannot be read or encoded.
    pub(in super::super) fn generate(
        &self,
        generator: &Generator,
        given: &[RowsOf],
        grid: &GridSettings,
        encoder: &mut RequestEncoder<'_>,
    ) -> Result<GeneratedRows> {
        let paths = self.haystack_paths(generator, given)?;
        let haystack = self.haystack(&paths)?;
        let lengths = match grid.lengths.as_slice() {
            [] => vec![encoder.context_length.min(DEFAULT_LENGTH)],
            lengths => lengths.to_vec(),
        };
        let depths = match grid.depths.as_slice() {
            [] => DEFAULT_DEPTHS.to_vec(),
            depths => depths.to_vec(),
        };
        let depths: Vec<Option<usize>> = match generator.has_depth() {
            true => depths.into_iter().map(Some).collect(),
            false => vec![None],
        };
        let (mut rows, mut cells, mut repeated) = (Vec::new(), Vec::new(), 0);
        for number in 0..grid.samples {
            let mut sample = generator.sample(grid.seed, number, haystack.as_ref());
            let columns = row(sample.as_mut(), 0, 0);
            let mut sizer = Sizer {
                prompts: Prompts {
                    task: self,
                    fields: Fields::new(self, &columns)?,
                    examples: ExampleSampler::new(Sampler::default(), &[], 0),
                    pool: &[],
                    num_fewshot: 0,
                },
                encoder: &mut *encoder,
            };
            for &length in &lengths {
                let first = depths[0].unwrap_or(0);
                let name = format!("{}, sample {}", self.name(), number + 1);
                let fitting = most_units(length, |units| {
                    sizer.tokens(&row(sample.as_mut(), units, first), &name)
                })?;
                let mut units = fitting.map_err(|least| self.too_short(length, least))?;
                for &depth in &depths {
                    // Tokens around the answer depend a little on where it is.
                    let fields = loop {
                        let fields = row(sample.as_mut(), units, depth.unwrap_or(0));
                        let tokens = sizer.tokens(&fields, &name)?;
                        match units {
                            _ if tokens <= length => break fields,
                            0 => return Err(self.too_short(length, tokens)),
                            _ => units -= 1,
                        }
                    };
                    repeated += usize::from(haystack.as_ref().is_some_and(|it| units > it.words()));
                    rows.push(Row { name: name.clone(), fields });
                    cells.push(Cell { length, depth });
                }
            }
        }
        let facts = GeneratedFacts {
            seed: grid.seed,
            samples: grid.samples,
            haystack: paths.iter().map(|path| path.display().to_string()).collect(),
            repeated,
        };
        Ok(GeneratedRows { rows, cells, facts })
    }

    /// Where the text is: local files given for the task, or those of the task file.
    fn haystack_paths(&self, generator: &Generator, given: &[RowsOf]) -> Result<Vec<PathBuf>> {
        let own = given.iter().filter(|rows| rows.task == self.name());
        let own: Vec<PathBuf> = own.map(|rows| rows.path.clone()).collect();
        if !own.is_empty() && !generator.reads_text() {
            let cause = "the task reads no text";
            return Err(EvalError::task(format!("--data {}", self.name()), cause, "leave it out"));
        }
        let arguments = self.file.dataset_kwargs.as_ref();
        let has_files = arguments.is_some_and(|arguments| arguments.data_files.is_some());
        match own.is_empty() && has_files {
            true => self.files_of(self.evaluated_split()?),
            false => Ok(own),
        }
    }

    fn haystack(&self, paths: &[PathBuf]) -> Result<Option<Haystack>> {
        if paths.is_empty() {
            return Ok(None);
        }
        let haystack = Haystack::new(&read_documents(paths)?);
        let empty = || EvalError::task(paths[0].display().to_string(), "there is no text", "");
        haystack.ok_or_else(empty).map(Some)
    }

    fn too_short(&self, length: usize, least: usize) -> EvalError {
        self.wrong(
            format!(
                "a document of {} has no room: question and answer alone take {}",
                counted(length, "token"),
                grouped(least)
            ),
            format!("pass --lengths {least} or more"),
        )
    }
}

fn row(sample: &mut dyn Sample, units: usize, depth: usize) -> Json {
    let fields = sample.fields(units, depth).into_iter();
    Json::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Counts the tokens of a document.
struct Sizer<'a, 'e> {
    prompts: Prompts<'a>,
    encoder: &'a mut RequestEncoder<'e>,
}

impl Sizer<'_, '_> {
    fn tokens(&mut self, row: &Json, name: &str) -> Result<usize> {
        let wrong = |cause: String| EvalError::task(name, cause, "");
        let prompt = self.prompts.of(row).map_err(wrong)?;
        let kind = self.prompts.task.output_type();
        let tokens = self.encoder.tokens_of(kind, &prompt);
        tokens.map_err(|error| error.in_document(name).into())
    }
}
