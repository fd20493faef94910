//! Properties of the whole model that hold for every method, also for one that is made up here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod every_method;
mod fifth_method;
mod small_model;
mod variants;
