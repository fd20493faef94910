//! Files that the program itself reads and writes.

mod directory;
mod tensors;
mod whole;

pub(crate) use directory::{check_absent, write_directory};
pub(crate) use tensors::{OutputTensor, read_input_ids, write_tensors};
pub(crate) use whole::{check_writable, write_whole};
