//! Runs that are killed, interrupted, damaged or started twice.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod faults;
mod kills;
mod program;
mod signals;
mod strace;
mod tensorboard;
