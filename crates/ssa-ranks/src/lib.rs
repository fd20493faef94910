//! The processes that train one model together: who they are, how they meet, how they exchange
//! bytes, and how all of them end when one is lost.
//!
//! ```text
//! World      which rank this process is and where rank 0 listens: from flags or a launcher
//! Children   the ranks that this process starts itself
//! Ranks      the connected ranks, after a roll call: collectives on bytes and numbers
//! Alarm      ends all ranks when one of them fails
//! ShardMap   which rank owns which elements of which parameter
//! ```
//!
//! Rank 0 decides and the others follow, so no two ranks can come to different decisions.
//!
//! # Sums
//! This crate moves bytes and adds nothing. Who receives them adds in a fixed order, so results do
//! not depend on the network.
//!
//! # Failure
//! A control connection from every rank to rank 0 carries a heartbeat each second and the notice
//! that a rank failed or was lost. A rank that vanishes closes its connection, a rank that is
//! stopped falls silent; every other rank then ends by itself and names it, its host, its step and
//! its operation.
//!
//! # Security
//! A run token keeps processes of other runs out. It is neither authentication nor encryption: use
//! ranks on networks that you trust.

mod children;
mod control;
mod deadlines;
mod environment;
mod error;
mod fact;
mod mesh;
mod message;
mod ranks;
mod rendezvous;
mod shards;
#[cfg(test)]
mod tests;
mod world;

pub use children::{Children, end_with_parent};
pub use control::Alarm;
pub use deadlines::Deadlines;
pub use error::RanksError;
pub use fact::Fact;
pub use message::{Cause, Notice, Place};
pub use ranks::Ranks;
pub use rendezvous::Rendezvous;
pub use shards::{BLOCK, ShardMap};
pub use world::World;

/// Result of the functions in this crate.
pub type Result<T, E = RanksError> = std::result::Result<T, E>;
