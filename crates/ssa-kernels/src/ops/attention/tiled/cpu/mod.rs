//! Tiles of queries against tiles of keys on the CPU, each a matrix product.
//!
//! A row of a query tile is one query head at one token, so that the G heads that share a key/value
//! head share every product with it. `README.md` beside this folder derives both passes.

mod backward;
mod forward;
mod tiles;

pub(super) use backward::backward;
pub(super) use forward::forward;
