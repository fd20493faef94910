//! `ssa export`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use ssa_data::TOKENIZER_FILES;
use ssa_files::{FileError, Operation};
use ssa_model::checkpoint;

use super::model::checkpoint_of;
use crate::args::{ExportArgs, ExportLayout};
use crate::display::note;
use crate::files::{check_absent, write_directory};

/// Sampling defaults of a model, as transformers keeps them.
const GENERATION_CONFIG: &str = "generation_config.json";

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    check_absent(&args.to, "--to")?;
    let directory = checkpoint_of(&args.model)?;
    ssa_train::verify_model(&directory)?;
    let (config, parameters) = checkpoint::load(&directory)?;
    write_directory(&args.to, |partial| {
        match args.layout {
            ExportLayout::Ssa => checkpoint::save(partial, &config, &parameters)?,
            ExportLayout::Llama => checkpoint::save_llama(partial, &config, parameters)?,
        }
        TOKENIZER_FILES
            .iter()
            .chain(&[GENERATION_CONFIG])
            .try_for_each(|name| copy_if_there(&directory, partial, name))
    })?;
    note(&format!("wrote {}", args.to.display()));
    Ok(())
}

fn copy_if_there(from: &Path, to: &Path, name: &str) -> Result<()> {
    let path = from.join(name);
    if path.is_file() {
        let bytes = fs::read(&path).map_err(FileError::at(Operation::Read, &path))?;
        ssa_files::write(&to.join(name), bytes)?;
    }
    Ok(())
}
