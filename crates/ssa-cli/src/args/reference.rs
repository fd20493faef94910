//! `docs/reference/cli.md`, generated from the definitions of the command line.

use clap::{Arg, Command, CommandFactory};

use super::{Cli, ENVIRONMENT};
use crate::exit;

const WIDTH: usize = 100;

/// The page: what applies to all verbs, and a section for each verb.
pub(super) fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = format!("# Command line\n\n{}\n", described(&root));
    page += &paragraph(
        "`ssa --help` and `ssa VERB --help` print this text; `-h` prints a short form. \
         [Output](output.md) explains the tables and files that the verbs write. This page is \
         generated from the definitions in `crates/ssa-cli/src/args/`; a test keeps them equal.",
    );
    page += "\n| verb | meaning |\n|---|---|\n";
    let mut sections = String::new();
    for (name, verb) in verbs(&root) {
        let anchor = name.replace(' ', "-");
        page += &format!("| [`{name}`](#{anchor}) | {} |\n", sentence(&about(verb)));
        sections += &section(name, verb);
    }
    page += "\n## Exit codes\n\n| code | meaning |\n|---|---|\n";
    for (code, meaning) in exit::codes() {
        page += &format!("| {code} | {} |\n", capital(&sentence(meaning)));
    }
    page += "\n";
    page += &paragraph(
        "A second signal during training, and the first one otherwise, ends the program \
         immediately with code 128 plus the signal number. Errors are printed as `error: ` with \
         what is wrong and where, followed by lines `hint: ` with what to do about it.",
    );
    page += "\n## Environment\n\n| variable | meaning |\n|---|---|\n";
    for (name, meaning) in ENVIRONMENT {
        page += &format!("| `{name}` | {} |\n", capital(&sentence(meaning)));
    }
    page + &sections
}

/// Every verb of a command with its full name, groups of verbs before their verbs.
fn verbs(command: &Command) -> Vec<(&str, &Command)> {
    let inner = command.get_subcommands().filter(|command| command.get_name() != "help");
    inner
        .flat_map(|verb| {
            let named = (verb.get_bin_name().unwrap_or_default(), verb);
            [named].into_iter().chain(verbs(verb))
        })
        .collect()
}

/// Whether a verb is more than the name of a group of verbs.
pub(super) fn does_something(verb: &Command) -> bool {
    !verb.has_subcommands() || verb.get_positionals().next().is_some()
}

fn section(name: &str, verb: &Command) -> String {
    if !does_something(verb) {
        return format!("\n## `{name}`\n\n{}", described(verb));
    }
    // The second line of a verb with subcommands is about them.
    let usage = verb.clone().render_usage().to_string();
    let usage =
        if verb.has_subcommands() { usage.lines().next().unwrap_or_default() } else { &usage };
    let usage: Vec<&str> = usage.split_whitespace().skip(1).collect();
    let mut text = format!("\n## `{name}`\n\n    {}\n\n{}", usage.join(" "), described(verb));
    text += "\n| argument | meaning |\n|---|---|\n";
    // Shared flags come last, as in the help.
    let is_shared = |argument: &&Arg| ["threads", "device"].contains(&argument.get_id().as_str());
    let arguments = || verb.get_arguments().filter(|argument| argument.get_id() != "help");
    let own = arguments().filter(|argument| !is_shared(argument));
    for argument in own.chain(arguments().filter(is_shared)) {
        text += &format!("| {} | {} |\n", cell(&format!("`{argument}`")), cell(&meaning(argument)));
    }
    let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
    text += "\nExamples:\n\n";
    text + &examples(&help).iter().map(|line| format!("    {line}\n")).collect::<String>()
}

/// The examples in a help text: the lines below `Examples:`.
pub(super) fn examples(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.map_while(|line| line.strip_prefix("  ")).collect()
}

/// The whole description of a verb.
fn described(verb: &Command) -> String {
    let long = verb.get_long_about().map_or_else(|| about(verb), ToString::to_string);
    let paragraphs: Vec<String> =
        long.split("\n\n").map(|text| paragraph(&sentence(text))).collect();
    paragraphs.join("\n")
}

fn about(verb: &Command) -> String {
    verb.get_about().map(ToString::to_string).unwrap_or_default()
}

/// The help of an argument, with its values and its default.
fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut text = sentence(&help.map(ToString::to_string).unwrap_or_default());
    let takes_value = argument.get_action().takes_values();
    let values = argument.get_possible_values();
    if takes_value && !values.is_empty() {
        let values: Vec<String> = values
            .iter()
            .map(|value| match value.get_help() {
                None => format!("`{}`", value.get_name()),
                Some(help) => format!("`{}` ({help})", value.get_name()),
            })
            .collect();
        text += &format!(" Values: {}.", values.join(", "));
    }
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes_value && !defaults.is_empty() && !argument.is_hide_default_value_set() {
        text += &format!(" Default: `{}`.", defaults.join(","));
    }
    if argument.is_required_set() {
        text += " Required.";
    }
    text
}

/// Text with a final period.
fn sentence(text: &str) -> String {
    let text = text.trim().replace('\n', " ");
    if text.ends_with(['.', ':', '?']) { text } else { text + "." }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

/// Text as a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A paragraph wrapped at [`WIDTH`] columns.
fn paragraph(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}
