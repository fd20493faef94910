//! The exit code of each error.

use std::io;

use ssa_data::{DataError, TextError};
use ssa_eval::EvalError;
use ssa_infer::{InferError, SamplingError};
use ssa_kernels::KernelError;
use ssa_kernels::ops::attention::selection::InvalidBudget;
use ssa_model::ModelError;
use ssa_ranks::{Cause, RanksError};
use ssa_train::{ConfigError, TrainError};

use super::{Exit, FileError, Interrupted, NotFiniteError, UsageError};

/// The first error in the chain with a known kind decides.
pub(super) fn classify(error: &anyhow::Error) -> Exit {
    error.chain().find_map(kind).unwrap_or(Exit::Failure)
}

fn kind(error: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = error.downcast_ref::<TrainError>() {
        return Some(train_kind(error));
    }
    if let Some(error) = error.downcast_ref::<EvalError>() {
        return Some(eval_kind(error));
    }
    if let Some(error) = error.downcast_ref::<InferError>() {
        return Some(infer_kind(error));
    }
    if let Some(error) = error.downcast_ref::<ModelError>() {
        return Some(model_kind(error));
    }
    if let Some(error) = error.downcast_ref::<DataError>() {
        return Some(data_kind(error));
    }
    if let Some(error) = error.downcast_ref::<TextError>() {
        return Some(if error.is_usage() { Exit::Usage } else { Exit::Data });
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        let broken = error.kind() == io::ErrorKind::BrokenPipe;
        return Some(if broken { Exit::Success } else { Exit::Data });
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return Some(config_kind(error));
    }
    if let Some(error) = error.downcast_ref::<KernelError>() {
        return Some(kernel_kind(error));
    }
    if let Some(error) = error.downcast_ref::<RanksError>() {
        return Some(ranks_kind(error));
    }
    if error.is::<Interrupted>() {
        return Some(Exit::Interrupted);
    }
    if error.is::<UsageError>() || error.is::<InvalidBudget>() {
        return Some(Exit::Usage);
    }
    if error.is::<NotFiniteError>() {
        return Some(Exit::NotFinite);
    }
    (error.is::<FileError>() || error.is::<ssa_files::FileError>()).then_some(Exit::Data)
}

fn config_kind(error: &ConfigError) -> Exit {
    match error {
        ConfigError::Data(error) => data_kind(error),
        _ => Exit::Usage,
    }
}

fn train_kind(error: &TrainError) -> Exit {
    match error {
        TrainError::NotFinite { .. } | TrainError::Diverged(_) => Exit::NotFinite,
        TrainError::InitFrom { .. }
        | TrainError::Vocabulary { .. }
        | TrainError::Exists { .. }
        | TrainError::Finished { .. }
        | TrainError::FewerSteps { .. }
        | TrainError::NotARun { .. }
        | TrainError::NoRun { .. }
        | TrainError::Locked { .. }
        | TrainError::ConfigChanged { .. }
        | TrainError::Config(_) => Exit::Usage,
        TrainError::File(_)
        | TrainError::LockLost { .. }
        | TrainError::NoModel { .. }
        | TrainError::NoCheckpoint { .. }
        | TrainError::Checkpoint(_)
        | TrainError::CheckpointNotSaved { .. }
        | TrainError::Metrics { .. } => Exit::Data,
        TrainError::RankCount { .. } => Exit::Usage,
        TrainError::Ranks(error) => ranks_kind(error),
        TrainError::Kernel(error) => kernel_kind(error),
        TrainError::Model(error) => model_kind(error),
        TrainError::Data(error) => data_kind(error),
        _ => Exit::Failure,
    }
}

/// Distinguishes ranks to start again from those that would fail again.
fn ranks_kind(error: &RanksError) -> Exit {
    let of_code = |code: u8| Exit::ALL.into_iter().find(|exit| exit.code() == code);
    match error {
        RanksError::Setting { .. }
        | RanksError::Listen { .. }
        | RanksError::Different { .. }
        | RanksError::Thread { .. } => Exit::Usage,
        RanksError::Missing { .. } | RanksError::Unreachable { .. } => Exit::RankLost,
        RanksError::EndedEarly { code, .. } => code.and_then(of_code).unwrap_or(Exit::RankLost),
        RanksError::Ended(notice) => match notice.cause {
            Cause::Failed { code, .. } => of_code(code).unwrap_or(Exit::Failure),
            Cause::Lost(_) => Exit::RankLost,
        },
        _ => Exit::Failure,
    }
}

fn eval_kind(error: &EvalError) -> Exit {
    match error {
        EvalError::NotFinite { .. } => Exit::NotFinite,
        EvalError::UnknownTask(_) => Exit::Usage,
        EvalError::Task { place, .. } if place.starts_with("--") && place != "--data" => {
            Exit::Usage
        }
        EvalError::NoTargets
        | EvalError::Task { .. }
        | EvalError::Summary { .. }
        | EvalError::File(_) => Exit::Data,
        EvalError::Ranks(error) => ranks_kind(error),
        EvalError::Kernel(error) => kernel_kind(error),
        EvalError::Model(error) => model_kind(error),
        EvalError::Infer(error) => infer_kind(error),
        EvalError::Data(error) => data_kind(error),
        _ => Exit::Failure,
    }
}

fn infer_kind(error: &InferError) -> Exit {
    match error {
        InferError::Model(error) => model_kind(error),
        InferError::Kernel(error) => kernel_kind(error),
        InferError::Setting { .. }
        | InferError::Sampling(SamplingError::Setting { .. })
        | InferError::EmptyPrompt
        | InferError::PromptTooLong { .. } => Exit::Usage,
        InferError::GenerationConfig { .. } => Exit::Data,
        InferError::Sampling(SamplingError::Logits { .. }) => Exit::NotFinite,
        // An engine that rejects what passed all checks is a bug.
        _ => Exit::Failure,
    }
}

fn model_kind(error: &ModelError) -> Exit {
    match error {
        ModelError::UnknownName { .. }
        | ModelError::Options { .. }
        | ModelError::Budget { .. }
        | ModelError::HasGates
        | ModelError::NeedsGates { .. } => Exit::Usage,
        ModelError::Kernel(error) => kernel_kind(error),
        _ => Exit::Data,
    }
}

fn kernel_kind(error: &KernelError) -> Exit {
    match error {
        KernelError::HostMemory { .. } | KernelError::OutOfMemory { .. } => Exit::Usage,
        // An op that refuses arguments after all checks is a bug.
        _ => Exit::Failure,
    }
}

fn data_kind(error: &DataError) -> Exit {
    match error {
        DataError::Thread { .. } | DataError::Memory { .. } => Exit::Usage,
        error if error.is_usage() => Exit::Usage,
        _ => Exit::Data,
    }
}
