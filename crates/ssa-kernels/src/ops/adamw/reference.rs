//! `f64` definition of the update.

use super::AdamwOptions;
use crate::Result;
use crate::contract::{Args, N};

/// A tensor and its moments.
#[derive(Clone, Debug)]
pub struct State {
    /// The parameters.
    pub param: Vec<f64>,
    /// First moment of the gradient.
    pub m: Vec<f64>,
    /// Second moment of the gradient.
    pub v: Vec<f64>,
}

/// One update, `step` counted from 1.
///
/// # Errors
/// [`KernelError::Argument`](crate::KernelError::Argument) for sizes that do not fit.
pub fn step(
    state: &mut State,
    grad: &[f64],
    options: &AdamwOptions,
    step: u64,
    grad_scale: f64,
) -> Result<()> {
    Args::new("adamw::reference::step")
        .numbers("state.param", &state.param, [N])
        .numbers("state.m", &state.m, [N])
        .numbers("state.v", &state.v, [N])
        .numbers("grad", grad, [N])
        .check()?;
    let [lr, beta1, beta2, eps, decay] =
        [options.lr, options.beta1, options.beta2, options.eps, options.weight_decay]
            .map(f64::from);
    for (i, grad) in grad.iter().enumerate() {
        let g = grad * grad_scale;
        state.m[i] = beta1 * state.m[i] + (1.0 - beta1) * g;
        state.v[i] = beta2 * state.v[i] + (1.0 - beta2) * g * g;
        let m_hat = state.m[i] / (1.0 - beta1.powf(step as f64));
        let v_hat = state.v[i] / (1.0 - beta2.powf(step as f64));
        state.param[i] -= lr * decay * state.param[i];
        state.param[i] -= lr * m_hat / (v_hat.sqrt() + eps);
    }
    Ok(())
}
