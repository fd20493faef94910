//! The kinds of attention, one file each.

mod compression;
mod full;
mod sparse;
mod window;

pub use compression::Compression;
pub use full::Full;
pub use sparse::Sparse;
pub use window::Window;
