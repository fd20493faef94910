use super::*;
use crate::ops::testing::{assert_refused, zeros};

/// A tensor of bf16 on a GPU.
fn on_gpu<const R: usize>(shape: [usize; R]) -> Tensor {
    Tensor::simulated(Location::Simulated, DType::Bf16, shape)
}

#[test]
fn an_axis_has_one_size() {
    let [x, weight] = [zeros([2, 3, 4]), zeros([5, 4])];
    let table = || Args::new("op").act("x", &x, [LEADING, I]).act("weight", &weight, [O, I]);
    let call = table().check().unwrap();
    assert_eq!(call.sizes([I, O]).unwrap(), [4, 5]);
    assert_eq!(call.new_act([LEADING, O]).unwrap().shape(), [2, 3, 5]);
    assert_eq!(call.new_f32([LEADING]).unwrap().shape(), [2, 3]);
    assert_refused(table().act("dx", &zeros([3, 2, 4]), [LEADING, I]).check(), "dx");
    assert_refused(table().act("dx", &zeros([6, 4]), [LEADING, I]).check(), "dx");
    assert_refused(table().act("dx", &zeros([4]), [LEADING, I]).check(), "dx");
    assert_refused(table().act("dx", &zeros([]), [LEADING, I]).check(), "dx");
}

#[test]
fn the_first_argument_that_does_not_fit_is_named() {
    let [good, bad] = [zeros([2, 3]), zeros([3, 2])];
    let table = Args::new("op")
        .act("a", &good, [O, I])
        .act("b", &bad, [O, I])
        .positive("c", 0)
        .act("d", &bad, [O, I]);
    let error = table.check().err().unwrap().to_string();
    assert_eq!(error, "op: `b` has shape [3, 2], expected [O = 2, I = 3]");
}

#[test]
fn messages_show_the_sizes_that_are_known_and_the_rules() {
    let q = zeros([1, 2, 4, 6]);
    let refusal = |axes: &[Axis], shape: &[usize]| {
        let shape = zeros(shape);
        let table = Args::new("op").act("q", &q, [B, T, HQ, D]).act("k", &shape, axes);
        table.check().err().unwrap().to_string()
    };
    assert_eq!(
        refusal(&[B, T, H, D], &[1, 2, 3, 6]),
        "op: `k` has shape [1, 2, 3, 6], expected [B = 1, T = 2, H dividing HQ = 4, D = 6]"
    );
    assert_eq!(
        refusal(&[V, HIDDEN], &[1, 0]),
        "op: `k` has shape [1, 0], expected [V >= 1, hidden >= 1]"
    );
    assert_eq!(
        refusal(&[Axis::Times(3, "HQ"), HIDDEN], &[9, 5]),
        "op: `k` has shape [9, 5], expected [3 * HQ = 12, hidden >= 1]"
    );
    assert_eq!(refusal(&[LEADING, D], &[5]), "op: `k` has shape [5], expected [.., D = 6]");
}

#[test]
fn empty_axes_are_legal_where_they_mean_no_tokens() {
    let table = |axes: &[Axis], shape: &[usize]| {
        Args::new("op").act("x", &zeros(shape), axes).check().map(drop)
    };
    table(&[B, T, HIDDEN], &[0, 0, 1]).unwrap();
    table(&[LEADING, HIDDEN], &[0, 5, 1]).unwrap();
    table(&[C, H, D], &[0, 1, 1]).unwrap();
    assert_refused(table(&[B, T, HIDDEN], &[1, 1, 0]), "x");
    assert_refused(table(&[C, H, D], &[1, 0, 1]), "x");
    assert_refused(table(&[Axis::Times(3, "HQ")], &[0]), "x");
}

#[test]
fn the_first_tensor_decides_the_device_and_the_types() {
    let [cpu, gpu] = [zeros([2]), on_gpu([2])];
    let f32_on_gpu = Tensor::simulated(Location::Simulated, DType::F32, [2]);
    let refusal = |table: Args<'_>| table.check().err().unwrap();
    let table = Args::new("op").act("a", &cpu, [I]).act("b", &gpu, [I]);
    assert_eq!(refusal(table).to_string(), "op: `b` is on simulated:0, expected cpu");
    let table = Args::new("op").act("a", &gpu, [I]).f32("b", &gpu, [I]);
    assert_eq!(refusal(table).to_string(), "op: `b` holds bf16 elements, expected f32");
    let table = Args::new("op").act("a", &gpu, [I]).act("b", &f32_on_gpu, [I]);
    assert_eq!(refusal(table).to_string(), "op: `b` holds f32 elements, expected bf16");
    let table = Args::new("op").typed("a", &gpu, DType::I16, [I]);
    assert_eq!(refusal(table).to_string(), "op: `a` holds bf16 elements, expected i16");
    let table =
        Args::new("op").act("a", &gpu, [I]).float("b", &f32_on_gpu, [I]).f32("c", &f32_on_gpu, [I]);
    assert!(matches!(refusal(table), KernelError::Unsupported { op: "op", .. }));
}

#[test]
fn lists_have_an_entry_for_every_index() {
    let x = zeros([2, 3, 4]);
    let table = |len| {
        Args::new("op").act("x", &x, [LEADING, I]).entries("labels", len, "labels", [LEADING])
    };
    table(6).check().map(drop).unwrap();
    let error = table(5).check().err().unwrap().to_string();
    assert_eq!(error, "op: `labels` is 5 labels, expected 6 labels, one for each of [2, 3]");
    let huge = Args::new("op").size("shape", B, usize::MAX).size("shape", T, 2);
    assert_refused(huge.entries("ids", 0, "ids", [B, T]).check(), "ids");
}

#[test]
fn axes_without_a_size_are_refused() {
    let call = Args::new("op").act("x", &zeros([2]), [I]).check().unwrap();
    assert_refused(call.sizes([I, O]), "axes");
    assert_refused(call.new_act([LEADING]), "axes");
}

#[test]
fn outputs_larger_than_memory_are_refused() {
    let x = zeros([0, 1 << 40, 1]);
    let weight = zeros([0, 1 << 40, 1]);
    let call = Args::new("op")
        .act("x", &x, [Axis::Named("a", Sizes::Any), Axis::Named("b", Sizes::Any), I])
        .act("y", &weight, [Axis::Named("a", Sizes::Any), Axis::Named("c", Sizes::Any), I])
        .check()
        .unwrap();
    let axes = [Axis::Named("b", Sizes::Any), Axis::Named("c", Sizes::Any)];
    assert_refused(call.new_act(axes), "shape");
}

#[test]
fn a_list_may_give_one_axis_its_size() {
    let sizes = Args::new("op").size("inputs", I, 3).numbers("x", &[0.0; 12], [N, I]).check();
    assert_eq!(sizes.unwrap().sizes([N, I]).unwrap(), [4, 3]);
    for len in [0, 11, 13] {
        let args = Args::new("op").numbers("weight", &[0.0; 6], [O, I]);
        assert_refused(args.check(), "weight");
        let args = Args::new("op").size("inputs", I, 3).size("tokens", N, 4);
        assert_refused(args.numbers("x", &vec![0.0; len], [N, I]).check(), "x");
    }
    let error = Args::new("op").size("inputs", I, 3).numbers("x", &[0.0; 4], [N, I]).check();
    let expected = "op: `x` is 4 numbers, expected numbers, one for each of [N, I = 3]";
    assert_eq!(error.err().unwrap().to_string(), expected);
}
