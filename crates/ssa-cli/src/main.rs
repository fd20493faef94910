//! The binary `ssa`.

fn main() {}
