//! Which rank a process is, of how many, and where rank 0 listens.

use std::fs;

/// A process among the ranks of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
    /// Number of this rank among those on its host.
    pub local_rank: usize,
    /// Number of ranks on its host, as far as known; else 1.
    pub local_size: usize,
    /// Host on which rank 0 listens.
    pub host: String,
    /// Port on which rank 0 listens; 0 for any, if it starts the others itself.
    pub port: u16,
    /// Keeps processes of other runs out.
    pub token: String,
    /// Ranks after this one that this process has to start on its host.
    pub children: usize,
    /// Where all of this is from: variables with their values, or a flag.
    pub source: String,
}

impl World {
    /// The host of ranks that are all on this one.
    pub const LOCAL: &str = "127.0.0.1";

    /// A process without others.
    pub fn alone() -> Self {
        Self::local(1)
    }

    /// Rank 0 of `size` ranks that it starts on this host.
    pub(crate) fn local(size: usize) -> Self {
        Self {
            rank: 0,
            size,
            local_rank: 0,
            local_size: size,
            host: Self::LOCAL.to_owned(),
            port: 0,
            token: std::process::id().to_string(),
            children: size.saturating_sub(1),
            source: "--ranks".to_owned(),
        }
    }

    /// The network interface to listen on: ranks on one host need no other.
    pub(crate) fn interface(&self) -> &'static str {
        if self.host == Self::LOCAL { Self::LOCAL } else { "0.0.0.0" }
    }

    /// Where rank 0 listens.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The name of this host.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "this host".to_owned(),
        name => name.to_owned(),
    }
}
