//! `ssa data`: text of every kind becomes a corpus for inspection and training, in spite of errors
//! and kills.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod inputs;
#[cfg(unix)]
mod kills;
mod pipeline;
mod place;
