//! Where a tensor lives.

/// A compute device. The set is closed and chosen at run time; ops dispatch on it in their `mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The host processor: `f32`, parallel over rayon's global pool.
    Cpu,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
        }
    }
}
