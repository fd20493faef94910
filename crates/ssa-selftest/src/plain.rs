//! Arithmetic of a plain computation in `bf16`.

/// The nearest `bf16`.
pub fn bf16(value: f64) -> f64 {
    half::bf16::from_f64(value).to_f64()
}

/// The nearest `bf16` of every element.
pub fn round(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&value| bf16(value)).collect()
}
