//! Tasks by name or file.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};
use ssa_names::UnknownName;

use super::metric::Metric;
use super::output_type::OutputType;
use super::task_file::{MetricEntry, TaskFile};
use crate::{EvalError, Result};

/// The tasks of the program: name and file.
const BUILT_IN: [(&str, &str); 18] = [
    ("arc_challenge", include_str!("../../tasks/arc_challenge.yaml")),
    ("arc_easy", include_str!("../../tasks/arc_easy.yaml")),
    ("boolq", include_str!("../../tasks/boolq.yaml")),
    ("hellaswag", include_str!("../../tasks/hellaswag.yaml")),
    ("kv_retrieval", include_str!("../../tasks/kv_retrieval.yaml")),
    ("kv_retrieval_choice", include_str!("../../tasks/kv_retrieval_choice.yaml")),
    ("lambada_openai", include_str!("../../tasks/lambada_openai.yaml")),
    ("niah_multikey", include_str!("../../tasks/niah_multikey.yaml")),
    ("niah_multikey_choice", include_str!("../../tasks/niah_multikey_choice.yaml")),
    ("niah_multikey_needles", include_str!("../../tasks/niah_multikey_needles.yaml")),
    ("niah_multikey_needles_choice", include_str!("../../tasks/niah_multikey_needles_choice.yaml")),
    ("niah_single", include_str!("../../tasks/niah_single.yaml")),
    ("niah_single_choice", include_str!("../../tasks/niah_single_choice.yaml")),
    ("piqa", include_str!("../../tasks/piqa.yaml")),
    ("vt", include_str!("../../tasks/vt.yaml")),
    ("vt_choice", include_str!("../../tasks/vt_choice.yaml")),
    ("wikitext", include_str!("../../tasks/wikitext.yaml")),
    ("winogrande", include_str!("../../tasks/winogrande.yaml")),
];

/// Files that include others, at most so deep.
const MOST_INCLUDES: usize = 16;

/// The names of the tasks that the program has.
pub fn built_in_tasks() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// A benchmark task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The file, or the name of a task of the program, for messages.
    pub(super) place: String,
    pub(super) file: TaskFile,
    pub(super) metrics: Vec<MetricEntry>,
}

impl Task {
    /// The task of a name, or of a YAML file by its path.
    ///
    /// # Errors
    /// [`EvalError::UnknownTask`] with the nearest name; [`EvalError::Task`] names the file, and
    /// the line or key that is wrong.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text, Path::new(""));
        }
        let path = Path::new(name);
        let is_file =
            ["yaml", "yml"].map(Some).contains(&path.extension().and_then(|e| e.to_str()));
        if !is_file && !path.is_file() {
            return Err(EvalError::UnknownTask(UnknownName {
                kind: "task",
                given: name.to_owned(),
                expected: built_in_tasks().collect(),
            }));
        }
        Self::parse(name, &read(path)?, path.parent().unwrap_or(Path::new("")))
    }

    /// Parses a task file; `directory` has the files that it includes.
    fn parse(place: &str, text: &str, directory: &Path) -> Result<Self> {
        let keys = merged(place, text, directory, MOST_INCLUDES)?;
        let file: TaskFile = serde_json::from_value(Value::Object(keys))
            .map_err(|error| EvalError::task(place, error.to_string(), similar_key(&error)))?;
        let task = Self { place: place.to_owned(), metrics: metrics(&file), file };
        task.check()?;
        Ok(task)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.file.task
    }

    /// What it asks of a model.
    pub fn output_type(&self) -> OutputType {
        self.file.output_type
    }

    /// `metadata.version`, if the file has it.
    pub fn version(&self) -> Option<String> {
        let version = self.file.metadata.as_ref()?.version.as_ref()?;
        Some(version.as_str().map_or_else(|| version.to_string(), str::to_owned))
    }

    /// The split that is evaluated.
    pub(super) fn evaluated_split(&self) -> Result<&str> {
        let split = self.file.test_split.as_ref().or(self.file.validation_split.as_ref());
        split
            .map(String::as_str)
            .ok_or_else(|| self.wrong("no split to evaluate", "set test_split or validation_split"))
    }

    /// `fewshot_split`.
    pub(super) fn named_example_split(&self) -> Option<&String> {
        let config = self.file.fewshot_config.as_ref();
        config.and_then(|config| config.split.as_ref()).or(self.file.fewshot_split.as_ref())
    }

    /// The split that few-shot examples are drawn from.
    pub(super) fn example_split(&self) -> Result<&str> {
        let file = &self.file;
        let named = self.named_example_split();
        let split = named.or(file.training_split.as_ref()).or(file.validation_split.as_ref());
        split.map_or_else(|| self.evaluated_split(), |split| Ok(split))
    }

    /// Refuses what contradicts itself, and what is not supported.
    fn check(&self) -> Result<()> {
        let file = &self.file;
        self.evaluated_split()?;
        if file.output_type == OutputType::MultipleChoice && file.doc_to_choice.is_none() {
            return Err(self.wrong("missing field `doc_to_choice` of a multiple_choice task", ""));
        }
        if file.repeats.is_some_and(|repeats| repeats != 1) {
            return Err(self.wrong("`repeats` must be 1: texts are generated greedily", ""));
        }
        let generation = file.generation_kwargs.clone().unwrap_or_default();
        if generation.do_sample == Some(true) || generation.temperature.is_some_and(|t| t > 0.0) {
            let cause = "`generation_kwargs` asks for sampling: texts are generated greedily";
            return Err(self.wrong(cause, "set do_sample to false and leave out temperature"));
        }
        if let Some(cause) = file.generator.as_ref().and_then(|generator| generator.check().err()) {
            return Err(self.wrong(cause, ""));
        }
        let other = self.metrics.iter().find(|entry| !entry.metric.is_of(file.output_type));
        if let Some(entry) = other {
            let all = Metric::ALL.iter().filter(|metric| metric.is_of(file.output_type));
            let all: Vec<String> = all.map(|metric| format!("`{metric}`")).collect();
            let cause = format!("{} tasks have no metric `{}`", file.output_type, entry.metric);
            return Err(self.wrong(cause, format!("use {}", all.join(", "))));
        }
        Ok(())
    }

    /// The error for something in the task file.
    pub(super) fn wrong(&self, cause: impl Into<String>, hint: impl Into<String>) -> EvalError {
        EvalError::task(&self.place, cause, hint)
    }
}

/// The metrics of a file, or those of its kind.
fn metrics(file: &TaskFile) -> Vec<MetricEntry> {
    let default = || {
        let all = Metric::ALL.iter().filter(|metric| metric.is_default_of(file.output_type));
        all.map(|&metric| MetricEntry::of(metric)).collect()
    };
    file.metric_list.clone().unwrap_or_else(default)
}

/// The keys of a file, over those of the file that it includes.
fn merged(place: &str, text: &str, directory: &Path, depth: usize) -> Result<Map<String, Value>> {
    if let Some(line) = text.lines().position(|line| line.contains("!function")) {
        return Err(EvalError::task(
            format!("{place}, line {}", line + 1),
            "Python functions are not run",
            "use a Jinja2 template, or name a preprocessor with process_docs",
        ));
    }
    let keys: Value = serde_saphyr::from_str(text).map_err(|error| {
        // The first line has the place; an excerpt of the file follows.
        let cause = error.to_string();
        let cause = cause.lines().next().unwrap_or_default().trim_start_matches("error: ");
        EvalError::task(place, cause.to_owned(), "")
    })?;
    let Value::Object(mut keys) = keys else {
        return Err(EvalError::task(place, "expected keys with values", ""));
    };
    let Some(include) = keys.remove("include") else { return Ok(keys) };
    let Some(include) = include.as_str().filter(|_| depth > 0) else {
        return Err(EvalError::task(place, "`include` must name one other file", ""));
    };
    let stem = include.strip_suffix(".yaml").unwrap_or(include);
    let path = directory.join(include);
    let mut base = match BUILT_IN.iter().find(|(name, _)| *name == stem && !path.is_file()) {
        Some((name, text)) => merged(name, text, Path::new(""), depth - 1)?,
        None => {
            let directory = path.parent().unwrap_or(Path::new(""));
            merged(&path.display().to_string(), &read(&path)?, directory, depth - 1)?
        }
    };
    base.extend(keys);
    Ok(base)
}

/// A hint that names the key that an unknown one is similar to.
fn similar_key(error: &serde_json::Error) -> String {
    let message = error.to_string();
    // Names are between backticks, the unknown one first.
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().filter(|_| message.starts_with("unknown field"));
    let similar = unknown.and_then(|unknown| ssa_names::nearest(unknown, names));
    similar.map_or_else(String::new, |name| format!("did you mean `{name}`?"))
}

fn read(path: &Path) -> Result<String> {
    ssa_files::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => {
                "check the spelling; relative paths start at the working directory"
            }
            _ => "",
        };
        EvalError::task(path.display().to_string(), format!("cannot be read: {error}"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Task> {
        Task::parse("own.yaml", text, Path::new(""))
    }

    const OWN: &str = "task: own\ntest_split: test\ndoc_to_text: q\ndoc_to_target: a\n";

    #[test]
    fn the_tasks_of_the_program_are_valid() {
        for name in built_in_tasks() {
            let task = Task::find(name).unwrap();
            assert_eq!(task.name(), name);
            assert!(task.version().unwrap().ends_with(".0"));
            if task.file.generator.is_some() {
                continue;
            }
            let files = task.files_of("test").unwrap();
            assert!(files[0].to_str().unwrap().ends_with("/test/*.parquet"), "{files:?}");
        }
        let task = Task::find("arc_challenge").unwrap();
        assert_eq!(task.file.dataset_name.as_deref(), Some("ARC-Challenge"));
        assert_eq!(task.file.dataset_path.as_deref(), Some("allenai/ai2_arc"));
        assert_eq!(
            (task.evaluated_split().unwrap(), task.example_split().unwrap()),
            ("test", "train")
        );
    }

    #[test]
    fn own_tasks_have_the_shape_of_the_harness() {
        let more = "tag: x\ngeneration_kwargs: {until: \"\\n\", do_sample: false}\nmetric_list:\n  \
             - metric: exact_match\n    aggregation: mean\n    ignore_case: true\n    \
             higher_is_better: true\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    \
             test: [a.jsonl, b.jsonl]\n";
        let task = parse(&format!("{OWN}{more}")).unwrap();
        assert_eq!(task.output_type(), OutputType::GenerateUntil);
        assert_eq!(task.files_of("test").unwrap(), ["a.jsonl", "b.jsonl"].map(Path::new));
        assert!(task.metrics[0].ignore_case && task.version().is_none());
        assert_eq!(parse(OWN).unwrap().metrics[0].metric, Metric::ExactMatch);
    }

    #[test]
    fn faults_name_the_file_and_the_key() {
        for (text, causes) in [
            ("task: own\ntest_split: x\n", &["own.yaml: missing field `doc_to_text`"][..]),
            ("task: [\n", &["own.yaml: line 1"]),
            ("- task\n", &["own.yaml: expected keys"]),
            (
                &format!("{OWN}repeat: x\n"),
                &["own.yaml: unknown field `repeat`", "hint: did you mean `repeats`?"],
            ),
            (&format!("{OWN}metrics: x\n"), &["own.yaml: unknown field `metrics`"]),
            (&format!("{OWN}output_type: choice\n"), &["unknown output_type `choice`", "expected"]),
            (&format!("{OWN}output_type: multiple_choice\n"), &["missing field `doc_to_choice`"]),
            (
                &format!("{OWN}process_docs: !function u.f\n"),
                &["own.yaml, line 5: Python functions"],
            ),
            (&format!("{OWN}repeats: 3\n"), &["`repeats` must be 1"]),
            (&format!("{OWN}generation_kwargs: {{do_sample: true}}\n"), &["asks for sampling"]),
            (
                &format!("{OWN}metric_list: [{{metric: acc}}]\n"),
                &["no metric `acc`", "`exact_match`"],
            ),
            ("task: o\ndoc_to_text: q\ndoc_to_target: a\n", &["no split to evaluate"]),
            (&format!("{OWN}include: absent.yaml\n"), &["absent.yaml: cannot be read"]),
        ] {
            let error = parse(text).unwrap_err().to_string();
            for cause in causes {
                assert!(error.contains(cause), "{text}: {error}");
            }
        }
        let error = Task::find("piqqa").unwrap_err().to_string();
        assert!(error.contains("unknown task `piqqa`") && error.contains("did you mean `piqa`?"));
        let error = Task::find("absent.yaml").unwrap_err().to_string();
        assert!(error.starts_with("absent.yaml: cannot be read"), "{error}");
        assert!(error.contains("\nhint: check the spelling"), "{error}");
    }
}
