//! Sums over tokens that ranks send each other.

/// A sum over tokens, as numbers that ranks send each other.
pub(crate) trait Sum: Clone + Default {
    /// Number of numbers.
    const NUMBERS: usize;

    /// The numbers.
    fn to_numbers(&self) -> Vec<f64>;

    /// The sum of [`Self::NUMBERS`] numbers.
    fn from_numbers(numbers: &[f64]) -> Self;

    /// Adds the sum over other tokens.
    fn add(&mut self, other: &Self);
}
