//! `ssa config`, `ssa completions` and `ssa man`.

use clap::Args;
use clap_complete::Shell;

/// List the keys of the training configuration with their types and defaults.
///
/// With names of sections or keys, explains those.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa config
  ssa config optimizer training.steps")]
pub(crate) struct ConfigArgs {
    /// Sections or keys to explain, such as `optimizer` or `training.steps`.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa completions bash > ~/.local/share/bash-completion/completions/ssa
  ssa completions zsh > ~/.zfunc/_ssa
  ssa completions fish > ~/.config/fish/completions/ssa.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// Print the man page of the program or of a verb.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssa man data prepare | man -l -
  ssa man train > ~/.local/share/man/man1/ssa-train.1")]
pub(crate) struct ManArgs {
    /// The verb, such as `data prepare`; without one, the program itself.
    #[arg(value_name = "VERB")]
    pub(crate) verb: Vec<String>,
}
