//! `ssa export`.

use anyhow::Result;

use super::model::{self, LoadedModel, copy_companions};
use crate::args::{ExportArgs, ExportLayout};
use crate::display::note;
use crate::files::{check_absent, write_directory};

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    check_absent(&args.to, "--to")?;
    let LoadedModel { model, directory } = model::read(&args.model)?;
    let model = match args.layout {
        ExportLayout::Ssa => model,
        ExportLayout::Llama => model.without_gates()?,
    };
    write_directory(&args.to, |partial| {
        model.save(partial)?;
        copy_companions(&directory, partial)
    })?;
    note(&format!("wrote {}", args.to.display()));
    Ok(())
}
