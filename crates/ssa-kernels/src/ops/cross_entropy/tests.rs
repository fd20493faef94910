use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    values_mut, with_threads, zeros,
};

const SCALE: f32 = 0.25;
const Z_LOSS: f32 = 0.125;

/// Random labels, every fifth ignored.
fn random_labels(random: &mut Random, vocab: usize, tokens: usize) -> Vec<i32> {
    let labels = random.below(vocab as u32, tokens).into_iter().enumerate();
    labels.map(|(n, label)| if n % 5 == 3 { IGNORE_INDEX } else { label as i32 }).collect()
}

/// The sums of losses and of squared log-normalizers, and the number of targets.
fn numbers(loss: &CrossEntropy) -> (f64, f64, usize) {
    (loss.loss_sum.value().unwrap(), loss.lse_square_sum.value().unwrap(), loss.targets)
}

fn fwd_bwd(
    x: &Tensor,
    weight: &Tensor,
    labels: &[i32],
    z_loss: f32,
) -> ((f64, f64, usize), Tensor, Tensor) {
    let [mut dx, mut dweight] =
        [Tensor::zeros_like(x).unwrap(), Tensor::zeros_like(weight).unwrap()];
    let loss =
        linear_cross_entropy_fwd_bwd(x, weight, labels, SCALE, z_loss, &mut dx, &mut dweight)
            .unwrap();
    (numbers(&loss), dx, dweight)
}

fn check(tokens: usize, vocab: usize, hidden: usize) {
    let mut random = Random::new(1);
    let x = tensor(&mut random, [1, tokens, hidden]);
    let weight = tensor(&mut random, [vocab, hidden]);
    let labels = random_labels(&mut random, vocab, tokens);

    let forward = numbers(&linear_cross_entropy_fwd(&x, &weight, &labels).unwrap());
    let losses = linear_cross_entropy_losses(&x, &weight, &labels).unwrap();

    let expected = reference::losses(&to_f64(&x), &to_f64(&weight), &labels, hidden).unwrap();
    assert_close("losses", &losses, &expected, Tolerance::F32);
    let (loss_sum, square, targets) = forward;
    assert_eq!(targets, labels.iter().filter(|&&label| label != IGNORE_INDEX).count());
    let sum: f64 = expected.iter().sum();
    assert!((loss_sum - sum).abs() <= 1e-5 + 1e-6 * sum, "{loss_sum} instead of {sum}");
    let sum: f64 = reference::lse_squares(&to_f64(&x), &to_f64(&weight), &labels, hidden)
        .unwrap()
        .iter()
        .sum();
    assert!((square - sum).abs() <= 1e-5 + 1e-6 * sum, "{square} instead of {sum}");

    for z_loss in [0.0, Z_LOSS] {
        let (both, dx, dweight) = fwd_bwd(&x, &weight, &labels, z_loss);
        assert_eq!(forward, both);
        let (edx, edweight) =
            reference::backward(&to_f64(&x), &to_f64(&weight), &labels, hidden, f64::from(z_loss))
                .unwrap();
        let scaled =
            |gradient: Vec<f64>| gradient.iter().map(|g| f64::from(SCALE) * g).collect::<Vec<_>>();
        assert_close("dx", values(&dx), &scaled(edx), Tolerance::F32);
        assert_close("dweight", values(&dweight), &scaled(edweight), Tolerance::F32);
    }
}

#[test]
fn matches_the_reference() {
    for (tokens, vocab, hidden) in
        [(1, 1, 1), (63, 1, 5), (100, 2, 17), (63, 257, 64), (1, 5000, 9)]
    {
        check(tokens, vocab, hidden);
    }
}

#[test]
fn chunks_of_tokens_join() {
    // The last chunk is partial; 5000 columns also need two blocks of exponentials.
    for (vocab, hidden) in [(257, 4), (5000, 8)] {
        check(cpu::chunk_tokens(vocab) + 37, vocab, hidden);
    }
}

#[test]
fn chunks_have_a_bounded_number_of_logits() {
    for vocab in [1, 2, 257, 5000, 32_000, 128_256] {
        assert!(cpu::chunk_tokens(vocab) * vocab <= (1 << 20).max(256 * vocab));
    }
}

#[test]
fn large_logits_neither_overflow_nor_lose_the_loss() {
    // Logits 3000, 2999 and -3000.
    let x = Tensor::from_vec(vec![1000.0; 3], [1, 3, 1]).unwrap();
    let weight = Tensor::from_vec(vec![3.0, 2.999, -3.0], [3, 1]).unwrap();
    let labels = [0, 1, 2];
    let losses = linear_cross_entropy_losses(&x, &weight, &labels).unwrap();
    let expected = reference::losses(&to_f64(&x), &to_f64(&weight), &labels, 1).unwrap();
    // The logits themselves are rounded to 2.4e-4.
    assert_close("losses", &losses, &expected, Tolerance { atol: 5e-4, rtol: 1e-6 });
    let (_, dx, dweight) = fwd_bwd(&x, &weight, &labels, Z_LOSS);
    assert!(values(&dx).iter().chain(values(&dweight)).all(|value| value.is_finite()));
}

#[test]
fn nan_is_not_hidden() {
    let mut random = Random::new(2);
    let x = tensor(&mut random, [1, 4, 3]);
    let mut weight = tensor(&mut random, [40, 3]);
    values_mut(&mut weight)[60] = f32::NAN;
    let (loss, dx, _) = fwd_bwd(&x, &weight, &[0, 1, 2, 3], 0.0);
    assert!(loss.0.is_nan());
    assert!(values(&dx).iter().all(|value| value.is_nan()));
}

#[test]
fn ignored_tokens_leave_gradients_alone() {
    let mut random = Random::new(3);
    let (x, weight) = (tensor(&mut random, [2, 2, 3]), tensor(&mut random, [7, 3]));
    let (loss, dx, dweight) = fwd_bwd(&x, &weight, &[IGNORE_INDEX; 4], Z_LOSS);
    assert_eq!(loss, (0.0, 0.0, 0));
    assert!(values(&dx).iter().chain(values(&dweight)).all(|&value| value == 0.0));
    let (_, dx, _) = fwd_bwd(&x, &weight, &[IGNORE_INDEX, 3, IGNORE_INDEX, IGNORE_INDEX], Z_LOSS);
    let written: Vec<bool> = values(&dx).iter().map(|&value| value != 0.0).collect();
    assert_eq!(written, [[false; 3], [true; 3], [false; 3], [false; 3]].concat());
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(4);
    let (x, weight) = (tensor(&mut random, [1, 4, 3]), tensor(&mut random, [7, 3]));
    let labels = [1, 6, IGNORE_INDEX, 0];
    let (_, once_dx, once_dweight) = fwd_bwd(&x, &weight, &labels, Z_LOSS);
    let [mut dx, mut dweight] = [ones_like(&x), ones_like(&weight)];
    linear_cross_entropy_fwd_bwd(&x, &weight, &labels, SCALE, Z_LOSS, &mut dx, &mut dweight)
        .unwrap();
    assert_close("dx", values(&dx), &plus_one(&once_dx), Tolerance::F32);
    assert_close("dweight", values(&dweight), &plus_one(&once_dweight), Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(5);
    let (x, weight) = (tensor(&mut random, [1, 700, 64]), tensor(&mut random, [4500, 64]));
    let labels = random_labels(&mut random, 4500, 700);
    let run = |threads| with_threads(threads, || fwd_bwd(&x, &weight, &labels, Z_LOSS));
    let ((loss, dx, dweight), (expected_loss, expected_dx, expected_dweight)) = (run(1), run(5));
    assert_eq!(loss, expected_loss);
    assert_same(&dx, &expected_dx);
    assert_same(&dweight, &expected_dweight);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(6);
    let [x, weight] = [12, 15].map(|len| normal_f64(&mut random, len));
    let labels = [4, IGNORE_INDEX, 0, 2];
    for z_loss in [0.0, 0.3] {
        let (dx, dweight) = reference::backward(&x, &weight, &labels, 3, z_loss).unwrap();
        let loss = |x: &[f64], weight: &[f64]| -> f64 {
            let squares = reference::lse_squares(x, weight, &labels, 3).unwrap();
            reference::losses(x, weight, &labels, 3).unwrap().iter().sum::<f64>()
                + z_loss * squares.iter().sum::<f64>()
        };
        assert_gradient("dx", &x, &dx, |x| loss(x, &weight));
        assert_gradient("dweight", &weight, &dweight, |weight| loss(&x, weight));
    }
}

#[test]
fn no_tokens_give_zero() {
    let (loss, ..) = fwd_bwd(&zeros([0, 5, 3]), &zeros([7, 3]), &[], Z_LOSS);
    assert_eq!(loss, (0.0, 0.0, 0));
}

#[test]
fn wrong_arguments_are_refused() {
    let (x, weight) = (zeros([1, 3, 4]), zeros([7, 4]));
    assert_refused(linear_cross_entropy_fwd(&x, &zeros([7, 5]), &[0; 3]), "weight");
    assert_refused(linear_cross_entropy_fwd(&x, &zeros([28]), &[0; 3]), "weight");
    assert_refused(linear_cross_entropy_fwd(&x, &zeros([0, 4]), &[IGNORE_INDEX; 3]), "weight");
    assert_refused(linear_cross_entropy_fwd(&x, &weight, &[0; 4]), "labels");
    assert_refused(linear_cross_entropy_losses(&x, &weight, &[0, -1, 0]), "labels");
    let error = linear_cross_entropy_losses(&x, &weight, &[0, 1, 7]).unwrap_err();
    assert!(
        error.to_string().contains("`labels` is 7 at position 2, expected labels in 0..7 or -100"),
        "{error}"
    );
    let bwd = |dx: &[usize], dweight: &[usize]| {
        let [mut dx, mut dweight] = [zeros(dx), zeros(dweight)];
        linear_cross_entropy_fwd_bwd(&x, &weight, &[0; 3], 1.0, 0.0, &mut dx, &mut dweight)
    };
    bwd(&[1, 3, 4], &[7, 4]).unwrap();
    assert_refused(bwd(&[1, 4, 3], &[7, 4]), "dx");
    assert_refused(bwd(&[1, 3, 4], &[4, 7]), "dweight");
}

#[test]
fn workspaces_of_any_size_are_counted() {
    let gpu_bytes = cuda::workspace_bytes;
    for (tokens, vocab) in [(0, 0), (usize::MAX, 1), (1, usize::MAX), (usize::MAX, usize::MAX)] {
        let bytes = workspace_bytes(DeviceKind::Cpu, tokens, vocab);
        assert!(bytes >= tokens && gpu_bytes(tokens, vocab.max(1)) >= tokens, "{bytes}");
    }
}
