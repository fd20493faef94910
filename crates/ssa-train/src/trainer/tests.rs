use ssa_data::{ByteTokenizer, PackOptions, PackedRows, Packing, Remainder, pack};
use ssa_kernels::{DType, Device};
use ssa_ranks::{Deadlines, Ranks, Rendezvous, World};
use ssa_testkit::{Random, Tolerance, assert_close};

use super::*;
use crate::Checkpoint;
use crate::TrainConfig;
use crate::initial_model::initial_model;
use crate::metrics::tests::timeless;

/// Two layers of width 32 on rows of 48 tokens.
const TINY: &str = "
    [model]
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 2
    num_attention_heads = 4
    num_key_value_heads = 2
    head_dim = 8
    initializer_range = 0.1
    block_size = 4
    block_counts = 3
    window_size = 8
    [data]
    sequence_length = 48
    [training]
    steps = 4
    batch_size = 4
    [optimizer]
    learning_rate = 1e-2
    [evaluation]
    budgets = [\"4x3\"]";

pub(crate) fn plan(overrides: &[&str]) -> TrainPlan {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    TrainPlan::new(TrainConfig::parse(TINY, "tiny.toml", &overrides).unwrap()).unwrap()
}

/// Words of a small vocabulary in documents of 1 to 60 bytes, packed into rows. The last row is
/// padded, so rows differ in targets, documents and valid tokens.
pub(crate) fn rows(plan: &TrainPlan) -> PackedRows {
    let mut random = Random::new(5);
    let lengths = random.below(60, 12);
    let documents: Vec<Vec<u32>> = lengths
        .into_iter()
        .map(|length| {
            let text: String = random
                .below(3, 20)
                .iter()
                .map(|&word| ["sun ", "moon ", "star "][word as usize])
                .collect();
            ByteTokenizer.encode(&text.as_bytes()[..1 + length as usize])
        })
        .collect();
    let options = PackOptions {
        sequence_length: plan.sequence_length(),
        packing: Packing::Concat,
        seed: 3,
        remainder: Remainder::Pad,
    };
    pack(&documents, ByteTokenizer::EOS, &options).unwrap()
}

fn trainer(overrides: &[&str]) -> Trainer {
    let plan = plan(overrides);
    let (model, rows) = (initial_model(&plan).unwrap(), rows(&plan));
    Trainer::new(plan, model, rows).unwrap()
}

/// Runs all steps; returns the metrics without times.
fn run(trainer: &mut Trainer) -> Vec<StepMetrics> {
    trainer
        .map(|metrics| StepMetrics {
            seconds: 0.0,
            tokens_per_second: 0.0,
            tflops: 0.0,
            ..metrics.unwrap()
        })
        .collect()
}

#[test]
fn every_method_learns() {
    for method in ["full", "moba", "nsa", "ssa"] {
        let set = format!("objective.method={method}");
        let metrics = run(&mut trainer(&[&set, "training.steps=60", "optimizer.warmup_steps=5"]));
        let [first, last] = [&metrics[0], &metrics[59]].map(|metrics| metrics.cross_entropy);
        assert!((5.0..6.5).contains(&first), "{method} starts at {first}, near ln 257 = 5.55");
        assert!(last < 1.0, "{method} ends at {last}");
        let aligned = metrics.iter().all(|metrics| metrics.alignment > 0.0);
        assert_eq!(aligned, method == "ssa");
        assert_eq!(metrics[0].effective_alpha, if method == "ssa" { 10.0 } else { 0.0 });
    }
}

#[test]
fn metrics_describe_the_step() {
    let metrics = run(&mut trainer(&["objective.full_ratio=1"]));
    let count = rows(&plan(&[])).len();
    for (index, metrics) in metrics.iter().enumerate() {
        assert_eq!(metrics.step, index + 1);
        assert_eq!(metrics.full_stream_fraction, 1.0);
        assert_eq!(metrics.epoch, (4 * (index + 1)) as f64 / count as f64);
        assert_eq!(metrics.learning_rate, plan(&[]).schedule().learning_rate(index));
        assert!(metrics.tokens > 3 * 48 && metrics.tokens <= 4 * 48);
        assert_eq!(metrics.loss, metrics.cross_entropy + 10.0 * metrics.alignment);
        let layers = &metrics.alignment_per_layer;
        assert_eq!(layers.len(), 2);
        assert!((layers.iter().sum::<f64>() / 2.0 - metrics.alignment).abs() < 1e-9);
        assert!(metrics.z_loss > 1.0);
    }
    assert_eq!(metrics.len(), 4);
}

/// Advances to a step whose batch has several documents and padding, and whose rows differ in
/// targets.
fn go_to_unequal_batches(trainer: &mut Trainer) {
    let unequal = |batch: &Batch| {
        let mut targets: Vec<usize> = batch
            .labels
            .chunks(batch.tokens)
            .map(|row| row.iter().filter(|&&label| label >= 0).count())
            .collect();
        targets.sort_unstable();
        targets.dedup();
        let several = batch.cu_seqlens.len() > batch.batch + 1;
        several && batch.valid_tokens() < batch.ids.len() && targets.len() == batch.batch
    };
    let whole = Loader::new(rows(&plan(&[])), 4, trainer.plan.seed()).unwrap();
    let step = (0..100).find(|&step| unequal(&whole.batch(step).unwrap())).unwrap();
    trainer.done = step as usize;
    trainer.cursor = step * trainer.plan.batches().micro_batches(0) as u64;
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    for method in ["full", "moba", "nsa", "ssa"] {
        for draw in ["step", "layer"] {
            let gradient = |micro_batch_size: usize| {
                let mut trainer = trainer(&[
                    &format!("objective.method={method}"),
                    &format!("objective.stream_draw={draw}"),
                    &format!("training.micro_batch_size={micro_batch_size}"),
                ]);
                go_to_unequal_batches(&mut trainer);
                let metrics = trainer.step().unwrap();
                let gradient = trainer.grads.sum().to_device(&Device::Cpu, DType::F32).unwrap();
                (metrics.cross_entropy, metrics.alignment, gradient)
            };
            let (cross_entropy, alignment, whole) = gradient(4);
            for micro_batch_size in [2, 1] {
                let (ce, al, parts) = gradient(micro_batch_size);
                assert!(
                    (ce - cross_entropy).abs() < 1e-5 * cross_entropy,
                    "{method}: {ce} for {cross_entropy}"
                );
                assert!(
                    (al - alignment).abs() <= 1e-5 * alignment,
                    "{method}: {al} for {alignment}"
                );
                for ((name, part), (_, whole)) in parts.named().into_iter().zip(whole.named()) {
                    let whole = whole.as_slice().unwrap().iter();
                    let whole: Vec<f64> = whole.map(|&value| f64::from(value)).collect();
                    assert_close(
                        &format!("{method} {name}"),
                        part.as_slice().unwrap(),
                        &whole,
                        Tolerance::F32,
                    );
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut first = trainer(&["training.micro_batch_size=2"]);
    let mut second = trainer(&["training.micro_batch_size=2"]);
    let metrics = run(&mut first);
    assert_eq!(metrics, run(&mut second));
    assert!(first.model().parameters().same_elements(second.model().parameters()).unwrap());
    let mut other = trainer(&["training.micro_batch_size=2", "run.seed=1"]);
    assert_ne!(metrics, run(&mut other));
    let first = first.into_model();
    assert!(!first.parameters().same_elements(other.model().parameters()).unwrap());
}

#[test]
fn recomputing_changes_nothing() {
    for method in ["full", "moba", "nsa", "ssa"] {
        let method = format!("objective.method={method}");
        let [mut kept, mut recomputed] = ["false", "true"]
            .map(|recompute| trainer(&[&method, &format!("training.recompute={recompute}")]));
        assert_eq!(run(&mut kept), run(&mut recomputed));
        let recomputed = recomputed.model().parameters();
        assert!(kept.model().parameters().same_elements(recomputed).unwrap());
    }
}

#[test]
fn z_loss_is_minimized_and_0_disables_it() {
    let end = |weight: &str| {
        let metrics =
            run(&mut trainer(&[&format!("objective.z_loss={weight}"), "training.steps=30"]));
        (metrics[0].clone(), metrics[29].z_loss)
    };
    let (without, drifting) = end("0");
    let (with, held) = end("0.1");
    assert_eq!(without.loss, without.cross_entropy + 10.0 * without.alignment);
    assert_eq!(with.z_loss, without.z_loss);
    assert!((with.loss - without.loss - 0.1 * with.z_loss).abs() < 1e-6);
    assert!(held < 0.5 * drifting, "{held} with, {drifting} without");
}

#[test]
fn a_ramp_reads_every_row_once() {
    let mut ramp = trainer(&[
        "training.batch_size_start=1",
        "training.batch_ramp_steps=3",
        "training.steps=5",
    ]);
    let mut ids = Vec::new();
    let mut rows = Vec::new();
    for _ in 0..5 {
        let batches = ramp.micro_batches().unwrap();
        (ramp.cursor, ramp.done) = (ramp.indices().end, ramp.done + 1);
        rows.push(batches.iter().map(|batch| batch.batch).sum::<usize>());
        ids.extend(batches.into_iter().flat_map(|batch| batch.ids));
    }
    assert_eq!(rows, [1, 2, 3, 4, 4]);
    let uninterrupted =
        (0..14).flat_map(|index| ramp.batches.batch(index).unwrap().ids).collect::<Vec<_>>();
    assert_eq!(ids, uninterrupted);

    (ramp.cursor, ramp.done) = (0, 0);
    let metrics = run(&mut ramp);
    let count = ramp.batches.loader().mixture().rows() as f64;
    let epochs: Vec<f64> = metrics.iter().map(|metrics| metrics.epoch * count).collect();
    assert_eq!(epochs, [1.0, 3.0, 6.0, 10.0, 14.0]);
    assert!(metrics[0].tokens <= 48 && metrics[4].tokens > 3 * 48);
}

#[test]
fn ablations_run() {
    for setting in [
        "alpha=0",
        "full_ratio=0",
        "alignment=mse",
        "alignment_direction=full_to_sparse",
        "alignment_direction=sparse_to_full",
        "alignment_on=ungated",
        "stream_draw=micro_batch",
        "stream_draw=layer",
        "document_masking=full_only",
        "selection=reference",
    ] {
        let setting = format!("objective.{setting}");
        // The reference rule requires powers of two.
        let common =
            ["training.micro_batch_size=1", "model.block_counts=4", "evaluation.budgets=4x4"];
        let standard = run(&mut trainer(&common));
        let ablation = run(&mut trainer(&[&common[..], &[&setting]].concat()));
        assert_ne!(standard, ablation, "{setting}");
    }
    let draws = |scope| {
        let set = format!("objective.stream_draw={scope}");
        let metrics = run(&mut trainer(&["training.micro_batch_size=1", "training.steps=8", &set]));
        metrics.into_iter().map(|metrics| metrics.full_stream_fraction).collect::<Vec<_>>()
    };
    assert!(draws("step").iter().all(|share| [0.0, 1.0].contains(share)));
    assert!(draws("micro_batch").iter().any(|share| *share > 0.0 && *share < 1.0));
    assert!(draws("layer").contains(&0.5));
}

#[test]
fn a_non_finite_loss_stops_the_run_and_keeps_the_weights() {
    let mut trainer = trainer(&[]);
    trainer.next().unwrap().unwrap();
    trainer.model.parameters_mut().norm.as_mut_slice().unwrap().fill(f32::INFINITY);
    let before = trainer.model().parameters().to_device(&Device::Cpu, DType::F32).unwrap();
    let message = trainer.next().unwrap().unwrap_err().to_string();
    assert!(message.starts_with("step 2: the cross-entropy is "), "{message}");
    assert!(message.contains("weights of the step before are kept"), "{message}");
    assert!(trainer.model().parameters().same_elements(&before).unwrap());
    assert_eq!(trainer.done(), 1);
    assert!(trainer.next().is_none());
}

#[test]
fn a_clock_that_stands_still_gives_finite_rates() {
    let seconds = positive_seconds(Duration::ZERO);
    assert!(seconds > 0.0 && (1e24 / seconds).is_finite());
    assert_eq!(positive_seconds(Duration::from_millis(250)), 0.25);
}

#[test]
fn the_weight_of_the_alignment_loss_warms_up() {
    let alphas = |overrides: &[&str]| -> Vec<f64> {
        run(&mut trainer(overrides)).iter().map(|metrics| metrics.effective_alpha).collect()
    };
    let ramp = ["objective.alpha=8", "objective.alpha_warmup_steps=3"];
    assert_eq!(alphas(&ramp), [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(alphas(&["objective.alpha=8"]), [8.0; 4]);
    assert_eq!(alphas(&[ramp[1], "objective.method=full"]), [0.0; 4]);
    // The step runs by the weight that it logs.
    let weights = |overrides: &[&str]| {
        let mut trainer = trainer(overrides);
        trainer.step().unwrap();
        trainer.into_model().into_parameters()
    };
    assert!(weights(&ramp).same_elements(&weights(&["objective.alpha=2"])).unwrap());
}

/// Matrices of more than one block of elements, of which one is frozen, and clipped gradients.
const SHARED: [&str; 8] = [
    "model.hidden_size=64",
    "model.intermediate_size=2304",
    "model.num_hidden_layers=1",
    "training.groups=4",
    "training.batch_size=8",
    "training.micro_batch_size=1",
    "optimizer.max_grad_norm=0.1",
    "optimizer.frozen=[\"o_proj\"]",
];

/// Runs `work` on the trainer of rank 0 of `size`, whose others follow it.
pub(crate) fn on_ranks<R>(size: usize, leader: Trainer, work: impl FnOnce(Trainer) -> R) -> R {
    let place = |rank, port| World { rank, size, port, ..World::alone() };
    let rendezvous = Rendezvous::new(place(0, 0)).unwrap();
    let port = rendezvous.world().port;
    let meet = |rendezvous: Rendezvous| {
        rendezvous.meet(vec![], Deadlines::default(), || Ok(()), |_| {}).unwrap()
    };
    let (plan, rows) = (leader.plan.clone(), leader.batches.loader().mixture().clone());
    std::thread::scope(|scope| {
        for rank in 1..size {
            let (plan, rows) = (plan.clone(), rows.clone());
            scope.spawn(move || {
                let ranks = meet(Rendezvous::new(place(rank, port)).unwrap());
                let trainer = Trainer::follower(plan, rows).unwrap();
                let mut trainer = trainer.among(ranks).unwrap();
                trainer.follow(|_, _, _| Ok::<_, TrainError>(())).unwrap();
            });
        }
        let ranks = if size == 1 { Ranks::alone() } else { meet(rendezvous) };
        work(leader.among(ranks).unwrap())
    })
}

/// The bits of weights and moments, and the metrics, of three steps on ranks and then one on
/// `then` ranks.
fn shared_run(size: usize, then: usize) -> (Vec<Vec<f32>>, Vec<StepMetrics>) {
    let directory = tempfile::tempdir().unwrap();
    let step_of = |trainer: &mut Trainer| timeless(trainer.step().unwrap());
    let first = on_ranks(size, trainer(&SHARED), |mut trainer| {
        let metrics: Vec<_> = (0..3).map(|_| step_of(&mut trainer)).collect();
        trainer.snapshot().unwrap().write_to(directory.path());
        trainer.release_ranks().unwrap();
        metrics
    });
    let plan = plan(&SHARED);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let resumed = Trainer::resume(plan.clone(), &checkpoint, rows(&plan)).unwrap();
    on_ranks(then, resumed, |mut trainer| {
        let mut metrics = first;
        metrics.push(step_of(&mut trainer));
        let snapshot = trainer.snapshot().unwrap();
        trainer.release_ranks().unwrap();
        let all = [snapshot.parameters, snapshot.m, snapshot.v];
        let all = all.iter().flat_map(Parameters::named);
        (all.map(|(_, tensor)| tensor.to_vec().unwrap()).collect(), metrics)
    })
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() {
    let alone = shared_run(1, 1);
    assert!(alone.1.iter().all(|metrics| metrics.grad_norm > 0.1), "gradients are clipped");
    for (size, then) in [(2, 4), (4, 1), (1, 2)] {
        let shared = shared_run(size, then);
        assert_eq!(shared.1, alone.1, "metrics of {size} and {then} ranks");
        assert!(shared.0 == alone.0, "weights or moments of {size} and {then} ranks");
    }
}

#[test]
fn ranks_that_do_not_divide_the_groups_are_refused() {
    let message = |ranks| plan(&SHARED).check_ranks(ranks).unwrap_err().to_string();
    assert!(message(3).contains("3 ranks: training.groups is 4"), "{}", message(3));
    assert!(message(3).ends_with("hint: start 1 or 2 or 4 ranks"), "{}", message(3));
    assert!(message(8).ends_with("or set training.groups=8 or a larger power of two"));
}
