//! Hints for verbs and flags of other programs.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use ssa_train::TrainConfig;

/// Verbs of other programs, and the equivalent here.
const VERBS: [(&str, &str); 9] = [
    ("serve", "ssa has no server yet; `ssa generate` and `ssa chat` run a model"),
    ("complete", "did you mean `ssa generate`?"),
    ("run", "did you mean `ssa generate` or `ssa chat`?"),
    ("prepare", "did you mean `ssa data prepare`?"),
    ("tokenize", "did you mean `ssa data prepare`?"),
    ("inspect", "did you mean `ssa data inspect`?"),
    ("perplexity", "did you mean `ssa eval perplexity`?"),
    ("finetune", "did you mean `ssa train` with --set model.init_from=DIR?"),
    ("resume", "did you mean `ssa train --resume RUN_DIR`?"),
];

/// Adds a hint to an error about an unknown verb, about a flag that is a configuration key, or
/// about a directory without its flag.
pub(crate) fn with_hint(mut error: clap::Error) -> clap::Error {
    let hint = match (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::InvalidArg))
    {
        (Some(ContextValue::String(verb)), _) => hint_for_verb(verb),
        (_, Some(ContextValue::String(argument))) => {
            hint_for_flag(&error, argument).or_else(|| hint_for_path(&error, argument))
        }
        _ => None,
    };
    if let Some(hint) = hint {
        let hint = ContextValue::StyledStrs(vec![StyledStr::from(hint)]);
        error.insert(ContextKind::Suggested, hint);
    }
    error
}

fn hint_for_verb(verb: &str) -> Option<String> {
    let (_, hint) = VERBS.iter().find(|(known, _)| *known == verb)?;
    Some((*hint).to_owned())
}

/// Verbs, flags of other programs, and what to write here.
const FLAGS: [(&str, &[&str], &str); 4] = [
    ("ssa train", &["--config", "-c"], "name the configuration first: `ssa train FILE.toml`"),
    ("ssa train", &["--output", "--out", "--output-dir", "-o"], "did you mean `--run-dir`?"),
    ("ssa generate", &["--prompt", "-p"], "the prompt is an argument: `ssa generate \"TEXT\"`"),
    ("ssa generate", &["-n", "--n-predict", "--max-new-tokens"], "did you mean `--max-tokens`?"),
];

/// Flags of other programs, and configuration keys, which are not flags.
fn hint_for_flag(error: &clap::Error, flag: &str) -> Option<String> {
    let flag = flag.split('=').next()?;
    let usage = error.get(ContextKind::Usage)?.to_string();
    let is_known =
        |(verb, names, _): &&(&str, &[&str], &str)| usage.contains(verb) && names.contains(&flag);
    if let Some((.., hint)) = FLAGS.iter().find(is_known) {
        return Some((*hint).to_owned());
    }
    let key = TrainConfig::key_named(&flag.strip_prefix("--")?.replace('-', "_"))?;
    Some(format!("for a setting of `ssa train` pass --set {key}=VALUE"))
}

/// Models, outputs and text have flags, and settings are one argument with their value. With one
/// argument too many, the first may have been meant so.
fn hint_for_path(error: &clap::Error, argument: &str) -> Option<String> {
    let unexpected = error.kind() == ErrorKind::UnknownArgument && !argument.starts_with('-');
    let usage = error.get(ContextKind::Usage).filter(|_| unexpected)?.to_string();
    if usage.contains("ssa train") {
        let hint = "settings are `--set KEY=VALUE`, such as `--set training.steps=60`; text is \
                    named with `--data`";
        return Some(hint.to_owned());
    }
    let flag = ["--model", "--from"].into_iter().find(|flag| usage.contains(flag))?;
    let (before, after) = if usage.contains("--to") {
        ("", " and the output with `--to DIR`")
    } else if usage.contains("ssa generate") {
        ("quote a prompt of several words; ", "")
    } else if usage.contains("ssa chat") {
        ("messages are typed after the start; ", "")
    } else {
        ("", "")
    };
    Some(format!("{before}name the model with `{flag} DIR`{after}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn message(arguments: &[&str]) -> String {
        let all = ["ssa"].iter().chain(arguments);
        with_hint(Cli::try_parse_from(all).unwrap_err()).to_string()
    }

    #[test]
    fn names_from_other_programs_get_a_hint() {
        for (arguments, hint) in [
            (&["serve"][..], "`ssa generate` and `ssa chat`"),
            (&["run", "x"], "did you mean `ssa generate`"),
            (&["prepare", "x"], "`ssa data prepare`"),
            (&["train", "x.toml", "--lr", "1e-3"], "--set optimizer.learning_rate=VALUE"),
            (&["train", "x.toml", "--epochs=3"], "--set training.steps=VALUE"),
            (&["train", "x.toml", "--batch-size", "3"], "--set training.batch_size=VALUE"),
            (&["train", "x.toml", "--set", "training.steps", "60"], "`--set training.steps=60`"),
            (&["train", "--config", "x.toml"], "name the configuration first"),
            (&["train", "x.toml", "--out", "x"], "did you mean `--run-dir`?"),
            (&["generate", "--model", "x", "--prompt", "hi"], "the prompt is an argument"),
            (&["generate", "--model", "x", "hi", "-n", "10"], "did you mean `--max-tokens`?"),
            (&["train", "x.toml", "notes/"], "text is named with `--data`"),
            (&["generate", "runs/x", "hi"], "name the model with `--model DIR`"),
            (&["generate", "--model", "x", "hi", "there"], "quote a prompt of several words"),
            (&["chat", "--model", "x", "hi"], "messages are typed after the start"),
            (&["chat", "runs/x"], "name the model with `--model DIR`"),
            (&["eval", "perplexity", "runs/x"], "name the model with `--model DIR`"),
            (&["convert", "x", "y"], "with `--from DIR` and the output with `--to DIR`"),
        ] {
            let message = message(arguments);
            assert!(message.contains(hint), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let subcommand = message(&["tarin"]);
        assert!(subcommand.contains("a similar subcommand exists: 'train'"), "{subcommand}");
        for flag in ["--run-dri", "--model", "--analysis"] {
            let message = message(&["train", "x.toml", flag, "y"]);
            assert!(!message.contains("--set"), "{message}");
        }
    }

    #[test]
    fn analyze_has_a_british_alias() {
        for verb in ["analyze", "analyse"] {
            let cli = Cli::try_parse_from(["ssa", verb, "--model", "x"]).unwrap();
            assert!(matches!(cli.command, crate::args::Command::Analyze(_)));
        }
    }
}
