//! The coefficients that all elements of a step share.

use super::AdamwOptions;

/// Computed in `f64`, used in `f32`.
#[derive(Clone, Copy)]
pub(super) struct Coefficients {
    pub(super) beta1: f32,
    pub(super) one_minus_beta1: f32,
    pub(super) beta2: f32,
    pub(super) one_minus_beta2: f32,
    /// `1 - lr weight_decay`.
    pub(super) keep: f32,
    /// `lr / (1 - beta1^t)`.
    pub(super) step_size: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub(super) v_correction: f32,
    pub(super) eps: f32,
}

impl Coefficients {
    pub(super) fn new(options: &AdamwOptions, step: u64) -> Self {
        let [lr, beta1, beta2, weight_decay] =
            [options.lr, options.beta1, options.beta2, options.weight_decay].map(f64::from);
        Self {
            beta1: options.beta1,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: options.beta2,
            one_minus_beta2: (1.0 - beta2) as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            step_size: (lr / (1.0 - beta1.powf(step as f64))) as f32,
            v_correction: (1.0 - beta2.powf(step as f64)).sqrt().recip() as f32,
            eps: options.eps,
        }
    }
}
