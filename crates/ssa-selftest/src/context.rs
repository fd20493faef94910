//! Making inputs and comparing results.

use ssa_kernels::{DType, Device, KernelError, Tensor};
use ssa_testkit::Random;

use crate::{Result, bf16};

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Name of the op.
    pub op: &'static str,
    /// The case: shapes and settings.
    pub case: String,
    /// What was compared: `out`, `dq`.
    pub what: String,
    /// The largest error of an element; infinite if one is not a number.
    pub error: f64,
    /// The largest error allowed.
    pub allowed: f64,
}

impl Outcome {
    /// Whether the error is allowed.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }

    /// The error in multiples of what is allowed.
    pub fn share(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.allowed }
    }
}

/// What a suite works with.
pub struct Context<'a> {
    device: &'a Device,
    op: &'static str,
    case: String,
    random: Random,
    outcomes: Vec<Outcome>,
    observe: &'a mut dyn FnMut(&Outcome),
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        device: &'a Device,
        op: &'static str,
        observe: &'a mut dyn FnMut(&Outcome),
    ) -> Self {
        Self {
            device,
            op,
            case: String::new(),
            random: Random::new(1),
            outcomes: Vec::new(),
            observe,
        }
    }

    /// An error in a case is a failed outcome; a lost device ends the checks.
    pub(crate) fn finish(mut self, result: Result<()>) -> Result<Vec<Outcome>> {
        match result {
            Ok(()) => {}
            Err(error @ KernelError::Cuda { .. }) => return Err(error),
            Err(error) => self.fail(error.to_string()),
        }
        Ok(self.outcomes)
    }

    /// Begins a case.
    pub fn case(&mut self, name: impl Into<String>) {
        self.case = name.into();
    }

    /// The device under test.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// A source of random inputs.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Standard normal values times `scale` in the device's type, and the same values exactly.
    pub fn normal(&mut self, shape: &[usize], scale: f32) -> Result<(Tensor, Vec<f64>)> {
        let values = self
            .random
            .normal(shape.iter().product())
            .into_iter()
            .map(|value| scale * value)
            .collect();
        self.tensor(values, shape)
    }

    /// Values rounded to the device's type, and the same values exactly.
    pub fn tensor(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<(Tensor, Vec<f64>)> {
        let values: Vec<f32> =
            values.into_iter().map(|value| bf16(f64::from(value)) as f32).collect();
        let exact = values.iter().map(|&value| f64::from(value)).collect();
        Ok((Tensor::from_vec(values, shape)?.to_device(self.device, self.device.dtype())?, exact))
    }

    /// Values in `f32` on the device.
    pub fn f32_tensor(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(values, shape)?.to_device(self.device, DType::F32)
    }

    /// Compares a tensor with its exact value. `plain` is the result of a plain computation in
    /// `bf16`: twice its error is allowed, and half a unit in the last place of the largest
    /// element.
    pub fn compare(
        &mut self,
        what: &str,
        actual: &Tensor,
        exact: &[f64],
        plain: &[f64],
    ) -> Result<()> {
        // Nothing is within a tolerance of NaN.
        let plain_error = if plain.len() == exact.len() {
            max_error(plain.iter().copied(), exact)
        } else {
            f64::NAN
        };
        let allowed = 2.0 * plain_error + largest(exact) * f64::from(half::bf16::EPSILON) / 4.0;
        self.compare_within(what, &actual.to_vec()?, exact, allowed);
        Ok(())
    }

    /// Compares a tensor that is computed and kept in `f32` with its exact value: an error of 1e-5
    /// of the largest element is allowed, which hundreds of additions in `f32` stay below and a
    /// single rounding to `bf16` does not.
    pub fn compare_f32(&mut self, what: &str, actual: &Tensor, exact: &[f64]) -> Result<()> {
        self.compare_within(what, &actual.to_vec()?, exact, 1e-5 * largest(exact));
        Ok(())
    }

    /// Compares values with their exact ones, from which each may differ by `allowed`.
    pub fn compare_within(&mut self, what: &str, actual: &[f32], exact: &[f64], allowed: f64) {
        let error = max_error(actual.iter().map(|&value| f64::from(value)), exact);
        let error = if actual.len() == exact.len() { error } else { f64::INFINITY };
        self.outcome(what, error, allowed);
    }

    /// Compares a number with its exact value, of which it may differ by the share `tolerance`.
    pub fn compare_number(&mut self, what: &str, actual: f64, exact: f64, tolerance: f64) {
        self.outcome(what, (actual - exact).abs(), tolerance * exact.abs());
    }

    /// Two runs must give the same bits.
    pub fn compare_bits(&mut self, what: &str, first: &Tensor, second: &Tensor) -> Result<()> {
        let (first, second) = (first.to_vec()?, second.to_vec()?);
        let differ = first.iter().zip(&second).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let differ = if first.len() == second.len() { differ as f64 } else { f64::INFINITY };
        self.outcome(&format!("{what}, same bits"), differ, 0.0);
        Ok(())
    }

    /// A condition that must hold: the outcome counts the violations.
    pub fn check(&mut self, what: &str, violations: usize) {
        self.outcome(what, violations as f64, 0.0);
    }

    /// A number that must not exceed a bound.
    pub fn outcome(&mut self, what: &str, error: f64, allowed: f64) {
        let error = if error.is_nan() { f64::INFINITY } else { error };
        let outcome =
            Outcome { op: self.op, case: self.case.clone(), what: what.to_owned(), error, allowed };
        (self.observe)(&outcome);
        self.outcomes.push(outcome);
    }

    fn fail(&mut self, what: String) {
        self.outcome(&what, f64::INFINITY, 0.0);
    }
}

/// The largest finite magnitude.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values
        .iter()
        .filter(|value| value.is_finite())
        .fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

/// The largest difference; infinite where one is not a number or only one of the two is infinite.
fn max_error(actual: impl Iterator<Item = f64>, exact: &[f64]) -> f64 {
    worst(
        actual
            .zip(exact)
            .map(|(actual, exact)| if actual == *exact { 0.0 } else { (actual - exact).abs() }),
    )
}

/// The largest error; infinite where one is not a number, which a maximum would ignore.
pub(crate) fn worst(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, |worst, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
}
