//! The prompts of documents, with their few-shot examples.

use ssa_text::Json;

use super::examples::ExampleSampler;
use super::field::{Field, FieldValue};
use super::output_type::OutputType;
use super::preprocess::is_space;
use super::target::{ChoiceLength, Target};
use super::task::Task;
use crate::Result;

/// The fields of a task over the columns of its rows.
pub(super) struct Fields {
    description: Option<Field>,
    text: Field,
    target: Field,
    choices: Option<Field>,
    counted: Option<Field>,
}

impl Fields {
    pub(super) fn new(task: &Task, row: &Json) -> Result<Self> {
        let Json::Object(columns) = row else {
            return Err(task.wrong("the rows are not objects", ""));
        };
        let columns: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        let field = |name: &str, value: &serde_json::Value| {
            Field::new(value, &columns)
                .map_err(|cause| task.wrong(format!("`{name}`: {cause}"), ""))
        };
        let file = &task.file;
        let counted = file.doc_to_counted_text.clone().map(serde_json::Value::String);
        let description = (!file.description.is_empty()).then(|| file.description.clone().into());
        Ok(Self {
            description: description.map(|value| field("description", &value)).transpose()?,
            text: field("doc_to_text", &file.doc_to_text)?,
            target: field("doc_to_target", &file.doc_to_target)?,
            choices: file
                .doc_to_choice
                .as_ref()
                .map(|value| field("doc_to_choice", value))
                .transpose()?,
            counted: counted.map(|value| field("doc_to_counted_text", &value)).transpose()?,
        })
    }

    fn text(&self, row: &Json) -> Result<FieldValue, String> {
        let value = self.text.value(row, self.choices.is_some());
        value.map_err(|cause| format!("doc_to_text: {cause}"))
    }

    fn target(&self, row: &Json) -> Result<FieldValue, String> {
        let value = self.target.value(row, self.choices.is_some());
        value.map_err(|cause| format!("doc_to_target: {cause}"))
    }

    fn choices(&self, row: &Json) -> Result<Vec<String>, String> {
        let Some(choices) = &self.choices else { return Ok(Vec::new()) };
        match choices.value(row, false) {
            Ok(FieldValue::Texts(choices)) if !choices.is_empty() => Ok(choices),
            Ok(_) => Err("doc_to_choice: expected a list of texts".to_owned()),
            Err(cause) => Err(format!("doc_to_choice: {cause}")),
        }
    }
}

/// The texts of a document.
pub(super) struct Prompt {
    /// Few-shot examples and the question; one for each choice if the choices are contexts.
    pub(super) contexts: Vec<String>,
    /// What is scored after the contexts: one for each choice if the choices are continuations.
    pub(super) continuations: Vec<String>,
    /// Continuations that are scored without a context, too.
    pub(super) alone: Vec<String>,
    pub(super) target: Target,
}

/// Makes the prompts of one document after another.
pub(super) struct Prompts<'a> {
    pub(super) task: &'a Task,
    pub(super) fields: Fields,
    pub(super) examples: ExampleSampler<'a>,
    pub(super) pool: &'a [Json],
    pub(super) num_fewshot: usize,
}

impl Prompts<'_> {
    /// The prompt of a row.
    ///
    /// # Errors
    /// The field that is missing or of another kind.
    pub(super) fn of(&mut self, row: &Json) -> Result<Prompt, String> {
        let file = &self.task.file;
        let before = self.before(row)?;
        let choices = self.fields.choices(row)?;
        let target = self.fields.target(row)?;
        let delimited = |text: &String| [file.target_delimiter.as_str(), text].concat();
        // Choices as contexts, the target after each of them.
        let (contexts, right) = match (self.fields.text(row)?, file.output_type) {
            (FieldValue::Number(right), OutputType::MultipleChoice) => {
                let contexts = choices.iter().map(|choice| [before.as_str(), choice].concat());
                (contexts.collect(), Some(FieldValue::Number(right)))
            }
            (FieldValue::Number(number), _) => (vec![format!("{before}{number}")], None),
            (FieldValue::Text(text), _) => (vec![before + &text], None),
            _ => return Err("doc_to_text: expected a text, found a list".to_owned()),
        };
        let has_mutual_info = self.task.metrics.iter().any(|entry| entry.metric.needs_alone());
        let mut prompt =
            Prompt { contexts, continuations: vec![], alone: vec![], target: Target::Continuation };
        match file.output_type {
            OutputType::LogLikelihood => prompt.continuations = vec![text_of(target, &choices)?],
            OutputType::LogLikelihoodRolling => {
                let text = text_of(target, &choices)?;
                let counted = self.fields.counted.as_ref().map(|field| field.text(row));
                let counted = counted.transpose()?;
                prompt.target = counted_text(counted.as_ref().unwrap_or(&text));
                prompt.continuations = vec![text];
            }
            OutputType::MultipleChoice => {
                prompt.continuations = match &right {
                    Some(_) => vec![delimited(&text_of(target.clone(), &choices)?)],
                    None => choices.iter().map(delimited).collect(),
                };
                if has_mutual_info {
                    prompt.alone = choices.iter().map(delimited).collect();
                }
                let length = |choice: &String| ChoiceLength {
                    characters: choice.chars().count(),
                    bytes: choice.len(),
                };
                prompt.target = Target::Choices {
                    right: right_choices(right.unwrap_or(target), &choices)?,
                    lengths: choices.iter().map(length).collect(),
                };
            }
            OutputType::GenerateUntil => {
                prompt.target = Target::Texts(match target {
                    FieldValue::Texts(texts) => texts,
                    target => vec![text_of(target, &choices)?],
                });
            }
        }
        Ok(prompt)
    }

    /// The description and the few-shot examples.
    fn before(&mut self, row: &Json) -> Result<String, String> {
        let file = &self.task.file;
        let description = self.fields.description.as_ref().map(|field| field.text(row));
        let mut text = description.transpose()?.unwrap_or_default();
        // The harness leaves a document out of its own examples where it has no split for them.
        let excluded = self.task.named_example_split() == file.test_split.as_ref();
        let drawn = match self.num_fewshot {
            0 => Vec::new(),
            count => {
                let split = self.task.example_split().map_err(|error| error.to_string())?;
                let too_few = |cause| format!("{cause} in split `{split}`");
                self.examples.draw(count, excluded.then_some(row)).map_err(too_few)?
            }
        };
        for index in drawn {
            let example = &self.pool[index];
            let wrong = |cause: String| format!("example {}: {cause}", index + 1);
            let choices = self.fields.choices(example).map_err(wrong)?;
            let target = self.fields.target(example).map_err(wrong)?;
            let (question, answer) = match self.fields.text(example).map_err(wrong)? {
                FieldValue::Number(number) if !choices.is_empty() => {
                    let question = choices.get(number).cloned();
                    let cause = || wrong(format!("there is no choice {number}"));
                    (question.ok_or_else(cause)?, text_of(target, &[]).map_err(wrong)?)
                }
                text => {
                    let answer = text_of(target, &choices).map_err(wrong)?;
                    (text_of(text, &[]).map_err(wrong)?, answer)
                }
            };
            text += &question;
            if !answer.is_empty() {
                text += &file.target_delimiter;
                text += &answer;
                text += &file.fewshot_delimiter;
            }
        }
        Ok(text)
    }
}

/// The text of a target: a choice by its number, or the first of several texts.
fn text_of(target: FieldValue, choices: &[String]) -> Result<String, String> {
    match target {
        FieldValue::Text(text) => Ok(text),
        FieldValue::Number(number) if choices.is_empty() => Ok(number.to_string()),
        FieldValue::Number(number) => choices.get(number).cloned().ok_or_else(|| {
            format!("the target is choice {number}, and there are {}", choices.len())
        }),
        FieldValue::Texts(texts) => {
            texts.into_iter().next().ok_or_else(|| "the list of targets is empty".to_owned())
        }
        FieldValue::Numbers(numbers) => match numbers.first() {
            Some(&number) => text_of(FieldValue::Number(number), choices),
            None => Err("the list of targets is empty".to_owned()),
        },
    }
}

/// The numbers of the right choices.
fn right_choices(target: FieldValue, choices: &[String]) -> Result<Vec<usize>, String> {
    let place = |text: &String| choices.iter().position(|choice| choice == text);
    let right = match &target {
        FieldValue::Number(number) => Some(vec![*number]),
        FieldValue::Numbers(numbers) => Some(numbers.clone()),
        FieldValue::Text(text) => place(text).map(|place| vec![place]),
        FieldValue::Texts(texts) => texts.iter().map(place).collect(),
    };
    let valid = |right: &Vec<usize>| right.iter().all(|&number| number < choices.len());
    right
        .filter(valid)
        .ok_or_else(|| format!("the target is none of the {} choices: {target:?}", choices.len()))
}

/// Words as `re.split(r"\s+", text)` counts them, and bytes.
fn counted_text(text: &str) -> Target {
    let mut runs = 0;
    let mut in_space = false;
    for character in text.chars() {
        let space = is_space(character);
        runs += usize::from(space && !in_space);
        in_space = space;
    }
    Target::Counted { words: runs + 1, bytes: text.len() }
}
