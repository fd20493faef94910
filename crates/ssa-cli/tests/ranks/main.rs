//! Runs on several processes: the same results on any number, and the end of all when one ends.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod launch;
mod lost;
mod program;
mod same;
