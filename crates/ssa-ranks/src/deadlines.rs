//! How long ranks wait.

use std::time::Duration;

/// How long ranks wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For all ranks to join.
    pub join: Duration,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Without a heartbeat until a rank counts as lost.
    pub silence: Duration,
    /// For a rank that has heard of the end of another one to end by itself.
    pub grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let [join, heartbeat, silence, grace] = [60, 1, 20, 5].map(Duration::from_secs);
        Self { join, heartbeat, silence, grace }
    }
}
