//! `ssa config`, `ssa completions` and `ssa man`.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;
use serde::Serialize;
use ssa_report::{Column, NONE, Row, Table};
use ssa_train::TrainConfig;
use ssa_train::config::Key;

use crate::args::{Cli, CompletionsArgs, ConfigArgs, ManArgs};
use crate::display::{print, print_json, render, write_bytes};
use crate::exit::UsageError;

/// A key in the output of `--json`.
#[derive(Serialize)]
struct KeyOutput<'a> {
    key: &'a str,
    r#type: &'a str,
    default: Option<&'a str>,
    meaning: &'a str,
}

pub(super) fn config(args: &ConfigArgs) -> Result<()> {
    let all = TrainConfig::keys();
    let is_section =
        |name: &&String| all.iter().any(|key| key.name == **name && key.expected.is_none());
    let names: Vec<String> = args.names.iter().filter(|name| !is_section(name)).cloned().collect();
    TrainConfig::check_keys(&names, "ssa config")?;
    let asked = |key: &&Key| {
        let inside = |name: &String| {
            key.name
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        args.names.is_empty() || args.names.iter().any(inside)
    };
    let keys: Vec<(&Key, &str)> = all
        .iter()
        .filter(asked)
        // A section has no value.
        .filter_map(|key| Some((key, key.expected.as_deref()?)))
        .collect();
    if args.json {
        let output = keys.iter().map(|(key, expected)| KeyOutput {
            key: &key.name,
            r#type: expected,
            default: key.default.as_deref(),
            meaning: &key.doc,
        });
        return print_json(&output.collect::<Vec<_>>());
    }
    if args.names.is_empty() {
        return print(&render(&key_table(&keys)));
    }
    for (key, expected) in keys {
        let default = key.default.as_deref().unwrap_or("none");
        print(&format!("{}\n  type: {expected}\n  default: {default}\n  {}\n", key.name, key.doc))?;
    }
    Ok(())
}

fn key_table(keys: &[(&Key, &str)]) -> Table {
    let columns = vec![Column::text("key"), Column::text("type"), Column::text("default")];
    let row = |(key, expected): &(&Key, &str)| {
        let default = key.default.clone().unwrap_or_else(|| NONE.to_owned());
        Row::new(vec![key.name.clone(), (*expected).to_owned(), default])
    };
    Table::new(columns, keys.iter().map(row))
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ssa", &mut script);
    write_bytes(&script)
}

pub(super) fn man(args: &ManArgs) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for verb in &args.verb {
        command = command.find_subcommand(verb).ok_or_else(|| {
            UsageError(format!(
                "ssa man: no verb `{}`\nhint: run `ssa --help`",
                args.verb.join(" ")
            ))
        })?;
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).context("cannot write the man page")?;
    write_bytes(&page)
}
