//! Parity with the released code: logits, losses and every gradient of every golden case.
//!
//! Tolerances: a float64 re-computation of the same cases differs from these float32 files by up to
//! 1.3e-4 in the logits and 1e-5 in the losses, so agreement better than that would be chance.
//! Gradients are compared relative to the largest element of their tensor; float32 reductions over
//! a few hundred tokens in another order move them by some 1e-5.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use ssa_selftest::golden::{Case, total_loss};
use ssa_testkit::{golden_dir, max_error};

const LOGITS_TOLERANCE: f64 = 2e-4;
const LOSS_TOLERANCE: f64 = 2e-5;
const GRADIENT_TOLERANCE: f64 = 1e-4;

fn cases() -> Vec<Case> {
    let cases = Case::all(&golden_dir()).unwrap();
    assert!(!cases.is_empty(), "no golden case");
    cases
}

#[test]
fn logits_match_the_released_code() {
    for case in cases() {
        for stream in case.streams("eval_loss") {
            let hidden =
                case.model.forward(&case.input().unwrap(), &case.options(&stream)).unwrap();
            let logits = case.model.logits(&hidden).unwrap();
            let expected = case.tensor(&format!("logits.{stream}")).unwrap();
            let error = max_error(logits.as_slice().unwrap(), &expected.values);
            println!("{} {stream}: logits {error:.2e}", case.name);
            assert!(
                error < LOGITS_TOLERANCE,
                "{} {stream}: logits differ by {error:.2e}",
                case.name
            );
        }
    }
}

#[test]
fn losses_and_gradients_match_the_released_code() {
    for case in cases() {
        for stream in case.streams("train_loss") {
            let (losses, grads) = case.step(&case.model, &stream).unwrap();
            let loss_error =
                (total_loss(&losses) - case.loss(&format!("train_loss.{stream}"))).abs();
            assert!(
                loss_error < LOSS_TOLERANCE,
                "{} {stream}: loss differs by {loss_error:.2e}",
                case.name
            );
            let mut worst = (0.0, String::new());
            for (name, grad) in grads.named() {
                let expected = &case.tensor(&format!("grad.{stream}.{name}")).unwrap().values;
                let largest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
                let error = max_error(grad.as_slice().unwrap(), expected) / f64::from(largest);
                if error >= worst.0 {
                    worst = (error, name);
                }
            }
            println!("{} {stream}: loss {loss_error:.2e}, worst gradient {worst:?}", case.name);
            assert!(worst.0 < GRADIENT_TOLERANCE, "{} {stream}: {worst:?}", case.name);
        }
    }
}
