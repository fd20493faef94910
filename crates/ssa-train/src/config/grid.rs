//! A grid of training runs: the file of `ssa compare`.
//!
//! ```toml
//! config = "demo.toml"              # the base of every run, next to this file
//! seeds = [0, 1, 2]                 # every run is trained with each of them
//! set = { training.steps = 500 }    # keys for all runs
//!
//! [[run]]
//! name = "alpha-20"
//! set = { objective.alpha = 20 }    # keys of this run
//! ```

use std::collections::HashSet;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::schema::{Key, KeyContext, Leaf, Setting, join, section};
use super::{ConfigError, TrainConfig, apply_overrides, syntax_error};

/// Runs to compare: each of [`runs`](Self::runs) with each of [`seeds`](Self::seeds).
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The file of the grid.
    pub path: PathBuf,
    /// The training configuration that all runs start from.
    pub config: PathBuf,
    /// The keys of all runs, as `section.key=value`.
    pub shared: Vec<String>,
    /// The seeds, without duplicates.
    pub seeds: Vec<u64>,
    /// The runs in the order of the file, with different names.
    pub runs: Vec<GridRun>,
}

/// A run of a [`Grid`], before it gets a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridRun {
    /// Its name.
    pub name: String,
    /// The keys of this run alone, as `section.key=value`.
    pub settings: Vec<String>,
}

section! {
    /// The file of a grid.
    struct GridSection {
        /// The training configuration of all runs, relative to this file.
        config: Option<PathBuf> = None,
        /// The seeds of every run.
        seeds: Vec<u64> = vec![0],
        /// Keys of the training configuration, for all runs.
        set: Keys = Keys::default(),
        /// The runs.
        run: Runs = Runs::default(),
    }
}

section! {
    /// A run of the file.
    struct RunKeys {
        /// The name of the run.
        name: String = String::new(),
        /// Keys of the training configuration, for this run.
        set: Keys = Keys::default(),
    }
}

/// Keys of a training configuration, not checked yet.
#[derive(Clone, Debug, Default, PartialEq)]
struct Keys(Table);

/// The list of runs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Runs(Vec<RunKeys>);

impl Leaf for Keys {
    fn expected() -> String {
        "keys of a training configuration, such as { training.steps = 500 }".to_owned()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_table().cloned().map(Self)
    }

    fn to_toml(&self) -> Value {
        Value::Table(self.0.clone())
    }
}

impl Setting for Runs {
    fn describe(name: &str, doc: &str, _: Option<&Self>, keys: &mut Vec<Key>) {
        RunKeys::describe(name, doc, None, keys);
    }

    fn read(value: &Value, context: &KeyContext<'_>) -> Result<Self, ConfigError> {
        let expected = || "a list of runs, each under [[run]]".to_owned();
        let runs = value.as_array().ok_or_else(|| context.wrong_type(expected(), value))?;
        runs.iter().map(|run| RunKeys::read(run, context)).collect::<Result<_, _>>().map(Self)
    }

    fn write(&self, name: &str, out: &mut Vec<(String, Value)>) {
        self.0.iter().for_each(|run| run.write(name, out));
    }
}

impl Grid {
    /// Reads the file of a grid and applies `key=value` overrides to the keys of all runs. Checks
    /// everything but the values of the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the key: an unknown key or a wrong type, also in the
    /// keys of a run; no configuration, no run or no seed; a name or seed that occurs twice; the
    /// keys `run.name` and `run.seed`, which the grid sets.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = ssa_files::read_to_string(path).map_err(|source| ConfigError::Grid {
            origin: path.display().to_string(),
            problem: format!(
                "cannot be read: {source}\nhint: pass a grid of runs, for example \
                 configs/compare.toml"
            ),
        })?;
        Self::parse(&text, path, overrides)
    }

    /// Like [`load`](Self::load), with the text of the file.
    fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let refuse = |problem: String| ConfigError::Grid { origin: origin.clone(), problem };
        let table: Table = text.parse().map_err(|error| syntax_error(text, &origin, &error))?;
        if !table.is_empty() && TrainConfig::from_table(table.clone(), &origin).is_ok() {
            let problem = format!(
                "the configuration of one run, not a grid of runs\nhint: write a grid that names \
                 it, with config = \"{origin}\", like configs/compare.toml"
            );
            return Err(refuse(problem));
        }
        let mut keys = Vec::new();
        GridSection::describe("", "", None, &mut keys);
        let context = KeyContext { origin: &origin, key: String::new(), keys: &keys };
        let mut file = GridSection::read(&Value::Table(table), &context)?;

        let Some(config) = file.config else {
            let problem = "`config` is missing\nhint: name the training configuration of all \
                           runs, such as config = \"demo.toml\"";
            return Err(refuse(problem.to_owned()));
        };
        check_list("seeds", "seeds = [0, 1]", &file.seeds).map_err(refuse)?;
        let names: Vec<&str> = file.run.0.iter().map(|run| run.name.as_str()).collect();
        check_list("run", "[[run]], with a `name` and the keys to `set`", &names)
            .map_err(refuse)?;

        // The file is checked before overrides can cover up a mistake in it.
        file.set.settings(&origin, refuse)?;
        apply_overrides(&mut file.set.0, overrides)?;
        let run = |run: &RunKeys| {
            if run.name.is_empty() {
                return Err(refuse("a [[run]] has no `name`".to_owned()));
            }
            let settings = run.set.settings(&format!("{origin}, run `{}`", run.name), refuse)?;
            Ok(GridRun { name: run.name.clone(), settings })
        };
        Ok(Self {
            path: path.to_owned(),
            config: path.parent().unwrap_or(Path::new("")).join(config),
            shared: file.set.settings(&origin, refuse)?,
            seeds: file.seeds,
            runs: file.run.0.iter().map(run).collect::<Result<_, _>>()?,
        })
    }
}

/// Refuses an empty list and one with an entry that occurs twice.
fn check_list<T: Hash + Eq + ToString>(
    key: &str,
    example: &str,
    entries: &[T],
) -> Result<(), String> {
    if entries.is_empty() {
        return Err(format!("`{key}` is empty\nhint: add at least one entry, such as {example}"));
    }
    let mut seen = HashSet::new();
    match entries.iter().find(|entry| !seen.insert(*entry)) {
        None => Ok(()),
        Some(twice) => Err(format!("`{key}` has two entries {}", twice.to_string())),
    }
}

impl Keys {
    /// The keys as `section.key=value`, each checked like a configuration.
    fn settings(
        &self,
        origin: &str,
        refuse: impl Fn(String) -> ConfigError,
    ) -> Result<Vec<String>, ConfigError> {
        TrainConfig::from_table(self.0.clone(), origin)?;
        let mut leaves = Vec::new();
        collect("", &self.0, &mut leaves);
        let by_grid = [("run.seed", "`seeds`"), ("run.name", "the `name` of a [[run]]")];
        for (key, setter) in by_grid {
            if leaves.iter().any(|(name, _)| name == key) {
                return Err(refuse(format!("`{key}` cannot be set: it follows from {setter}")));
            }
        }
        Ok(leaves.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
    }
}

/// The dotted names and values of all keys below `name`.
fn collect(name: &str, table: &Table, out: &mut Vec<(String, String)>) {
    for (field, value) in table {
        match value {
            Value::Table(inner) => collect(&join(name, field), inner, out),
            value => out.push((join(name, field), value.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Grid, String> {
        Grid::parse(text, Path::new("configs/grid.toml"), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_grid_has_keys_of_all_runs_and_of_each() {
        let text = "config = \"demo.toml\"\nseeds = [3, 1]\nset = { training.steps = 5 }\n\
                    [[run]]\nname = \"a\"\n\
                    [[run]]\nname = \"b\"\n[run.set.objective]\nalpha = 2\nmethod = \"ssa\"\n\
                    [run.set.model.rope_scaling]\nfactor = 8.0\n";
        let grid = parse(text).unwrap();
        assert_eq!(grid.config, Path::new("configs/demo.toml"));
        assert_eq!(grid.seeds, [3, 1]);
        assert_eq!(grid.shared, ["training.steps=5"]);
        assert!(grid.runs[0].settings.is_empty());
        let mut settings = grid.runs[1].settings.clone();
        settings.sort();
        let expected =
            ["model.rope_scaling.factor=8.0", "objective.alpha=2", "objective.method=\"ssa\""];
        assert_eq!(settings, expected);

        let overrides = |text: &str| [text.to_owned()];
        let set = |text: &str, set| Grid::parse(text, Path::new("grid.toml"), &overrides(set));
        assert_eq!(set(text, "training.steps=7").unwrap().shared, ["training.steps=7"]);
        let message = set(text, "training.stpes=7").unwrap_err().to_string();
        assert!(message.starts_with("--set training.stpes=7: unknown key"), "{message}");
        let message = set(text, "run.seed=7").unwrap_err().to_string();
        assert!(message.contains("`run.seed` cannot be set"), "{message}");
    }

    #[test]
    fn mistakes_are_named() {
        let run = "[[run]]\nname = \"a\"\n";
        for (text, expected) in [
            (
                format!("confg = \"x\"\n{run}"),
                "configs/grid.toml: unknown key `confg`\nhint: did you mean `config`?",
            ),
            (
                "[training]\nsteps = 3\n".to_owned(),
                "configs/grid.toml: the configuration of one run, not a grid of runs\nhint: write \
                 a grid that names it, with config = \"configs/grid.toml\", like \
                 configs/compare.toml",
            ),
            (
                format!("config = \"x\"\n{run}sett = {{}}\n"),
                "configs/grid.toml: unknown key `run.sett`\nhint: did you mean `run.set`?",
            ),
            (
                format!("config = \"x\"\nzzz = 1\n{run}"),
                "configs/grid.toml: unknown key `zzz`\nhint: the keys are `config`, `seeds`, \
                 `set`, `run`",
            ),
            (
                format!("config = \"x\"\n{run}set = {{ training.stpes = 1 }}\n"),
                "configs/grid.toml, run `a`: unknown key `training.stpes`\nhint: did you mean \
                 `training.steps`?",
            ),
            (
                format!("config = \"x\"\nset = {{ training.steps = \"x\" }}\n{run}"),
                "configs/grid.toml: `training.steps` must be a non-negative integer, but is the \
                 string \"x\"",
            ),
            (
                format!("config = \"x\"\nset = 3\n{run}"),
                "configs/grid.toml: `set` must be keys of a training configuration, such as \
                 { training.steps = 500 }, but is the integer 3",
            ),
            (
                "config = \"x\"\nrun = 3\n".to_owned(),
                "configs/grid.toml: `run` must be a list of runs, each under [[run]], but is the \
                 integer 3",
            ),
            (
                run.to_owned(),
                "configs/grid.toml: `config` is missing\nhint: name the training configuration \
                 of all runs, such as config = \"demo.toml\"",
            ),
            (
                format!("config = \"x\"\nseeds = []\n{run}"),
                "configs/grid.toml: `seeds` is empty\nhint: add at least one entry, such as \
                 seeds = [0, 1]",
            ),
            (
                "config = \"x\"\n".to_owned(),
                "configs/grid.toml: `run` is empty\nhint: add at least one entry, such as \
                 [[run]], with a `name` and the keys to `set`",
            ),
            (
                format!("config = \"x\"\nseeds = [1, 2, 1]\n{run}"),
                "configs/grid.toml: `seeds` has two entries 1",
            ),
            (format!("config = \"x\"\n{run}{run}"), "configs/grid.toml: `run` has two entries a"),
            (
                "config = \"x\"\n[[run]]\nset = {}\n".to_owned(),
                "configs/grid.toml: a [[run]] has no `name`",
            ),
            (
                format!("config = \"x\"\n{run}set = {{ run.seed = 1 }}\n"),
                "configs/grid.toml: `run.seed` cannot be set: it follows from `seeds`",
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err(), expected, "{text}");
        }
        let message = parse("config = \n").unwrap_err();
        assert!(message.starts_with("configs/grid.toml, line 1, column "), "{message}");
    }
}
