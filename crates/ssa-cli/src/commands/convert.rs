//! `ssa convert`.

use anyhow::Result;
use ssa_data::{TOKENIZER_JSON, load_tokenizer};
use ssa_model::{SparseBudget, parameter_count};
use ssa_report::number::grouped;

use super::held_out::check_vocabulary;
use super::model::{self, LoadedModel, copy_companions};
use crate::args::ConvertArgs;
use crate::display::note;
use crate::files::{check_absent, write_directory};

pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    check_absent(&args.to, "--to")?;
    let budget = SparseBudget::new(args.block_size, args.block_counts)?;
    let LoadedModel { model, directory } = model::read(&args.from)?;
    let model = model.with_gates(budget)?;
    if directory.join(TOKENIZER_JSON).is_file() {
        check_vocabulary(&directory, model.config(), &load_tokenizer(&directory, None)?)?;
    } else {
        note(&format!(
            "warning: {}: no {TOKENIZER_JSON}, so the SSA model has none either\nhint: copy the \
             tokenizer of the model there, and convert again",
            directory.display()
        ));
    }
    write_directory(&args.to, |partial| {
        model.save(partial)?;
        copy_companions(&directory, partial)
    })?;
    note(&format!(
        "wrote {}: an SSA model of {} parameters, budget {budget}",
        args.to.display(),
        grouped(parameter_count(model.config()))
    ));
    Ok(())
}
