//! Rules for the whole repository: line width, spelling and the direction of imports.
//!
//! They only read the files of the repository, without network or git.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod crates;
mod files;
mod modules;
mod paths;
mod spelling;
mod width;
