//! Optimizer steps as training runs them: how often the host waits, and what a bad step changes.

use ssa_data::{DataError, PackOptions, PackedRows, Packing, Remainder, pack};
use ssa_kernels::{Device, KernelError};
use ssa_model::{Method, Model};
use ssa_train::{TrainConfig, TrainError, TrainPlan, Trainer};

use crate::model::kernel_error;
use crate::{Context, Result};

/// Two micro-batches a step.
const CONFIG: &str = "
    [model]
    hidden_size = 128
    intermediate_size = 192
    num_hidden_layers = 2
    num_attention_heads = 4
    num_key_value_heads = 2
    head_dim = 32
    initializer_range = 0.1
    block_size = 8
    block_counts = 3
    window_size = 16
    [data]
    sequence_length = 96
    [training]
    steps = 4
    batch_size = 4
    micro_batch_size = 2
    [optimizer]
    learning_rate = 1e-3
    [evaluation]
    budgets = [\"8x3\"]";

/// Rows that the loader draws from.
const ROWS: usize = 8;

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for method in Method::ALL {
        context.case(format!("{method}, 2 micro-batches"));
        let plan = plan(&format!("objective.method={method}"))?;
        waits(context, &plan)?;
        bad_step(context, &plan)?;
    }
    Ok(())
}

/// The host waits once a step, at its end.
fn waits(context: &mut Context<'_>, plan: &TrainPlan) -> Result<()> {
    let mut trainer =
        trainer(context, plan, ssa_train::initial_model(plan).map_err(device_error)?)?;
    // The first step also compares algorithms for its matrix products.
    trainer.step().map_err(device_error)?;
    let mut surplus = 0;
    for _ in 1..plan.steps() {
        let before = host_waits(context.device());
        trainer.step().map_err(device_error)?;
        let expected = u64::from(matches!(context.device(), Device::Cuda(_)));
        surplus += (host_waits(context.device()) - before).abs_diff(expected);
    }
    context.check("waits of the host, more or less than one a step", surplus as usize);
    Ok(())
}

/// A step that is not finite is refused, and leaves the weights as they were.
fn bad_step(context: &mut Context<'_>, plan: &TrainPlan) -> Result<()> {
    let mut model = ssa_train::initial_model(plan).map_err(device_error)?;
    model.parameters_mut().norm.as_mut_slice()?.fill(f32::INFINITY);
    let mut trainer = trainer(context, plan, model)?;
    let before = trainer.master_model().map_err(device_error)?;
    let refused = match trainer.step() {
        Err(TrainError::NotFinite { .. }) => true,
        Err(error) => return Err(device_error(error)),
        Ok(_) => false,
    };
    context.check("a step that is not finite goes through", usize::from(!refused));
    let after = trainer.master_model().map_err(device_error)?;
    let weights = before.parameters().named().into_iter().zip(after.parameters().named());
    for ((name, before), (_, after)) in weights {
        context.compare_bits(&format!("{name} after a bad step"), after, before)?;
    }
    Ok(())
}

fn plan(set: &str) -> Result<TrainPlan> {
    let config = TrainConfig::parse(CONFIG, "selftest", &[set.to_owned()]);
    TrainPlan::new(config.map_err(|error| device_error(error.into()))?)
        .map_err(|error| device_error(error.into()))
}

fn trainer(context: &mut Context<'_>, plan: &TrainPlan, model: Model) -> Result<Trainer> {
    let rows = rows(context, plan).map_err(|error| device_error(error.into()))?;
    let trainer = Trainer::new(plan.clone(), model, rows).map_err(device_error)?;
    trainer.to_device(context.device()).map_err(device_error)
}

/// Random bytes in documents of up to a row.
fn rows(context: &mut Context<'_>, plan: &TrainPlan) -> Result<PackedRows, DataError> {
    let (length, eos) = (plan.sequence_length(), plan.tokenizer().eos());
    let random = context.random();
    let borders = random.cu_seqlens(ROWS * length, length);
    let documents: Vec<Vec<u32>> =
        borders.windows(2).map(|border| random.below(eos, border[1] - border[0])).collect();
    let options = PackOptions {
        sequence_length: length,
        packing: Packing::Concat,
        seed: plan.seed(),
        remainder: Remainder::Pad,
    };
    pack(&documents, eos, &options)
}

fn host_waits(device: &Device) -> u64 {
    match device {
        Device::Cuda(gpu) => gpu.host_waits(),
        _ => 0,
    }
}

/// Plan and rows are sound here, so what is left are failures of the device.
fn device_error(error: TrainError) -> KernelError {
    match error {
        TrainError::Kernel(error) => error,
        TrainError::Model(error) => kernel_error(error),
        other => KernelError::Cuda { call: "a training step", message: other.to_string() },
    }
}
