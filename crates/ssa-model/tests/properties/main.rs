//! Properties of the whole model that hold for every method, including a test-only one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod every_method;
mod fifth_method;
mod small_model;
mod variants;
