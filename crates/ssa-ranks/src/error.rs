//! Errors of ranks.

use crate::message::Notice;

/// Why ranks could not meet or had to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// A flag or a variable of a launcher has a value that is not possible.
    #[error("{name} is `{value}`, expected {expected}")]
    Setting {
        /// The flag or variable.
        name: String,
        /// Its value.
        value: String,
        /// What it must be, and hints.
        expected: String,
    },
    /// Rank 0 cannot listen.
    #[error(
        "rank 0 cannot listen on {address}: {cause}\nhint: name an address of this host and a free \
         port with --rendezvous"
    )]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        cause: String,
    },
    /// A process for a rank cannot be started.
    #[error("rank {rank} cannot be started: {cause}")]
    Start {
        /// The rank.
        rank: usize,
        /// What the system says.
        cause: String,
    },
    /// The system refuses to start a thread.
    #[error(
        "cannot start a thread: {cause}\nhint: raise the limits of the system (ulimit -u, \
         ulimit -v)"
    )]
    Thread {
        /// What the system says.
        cause: String,
    },
    /// A rank that this process started ended before the roll call.
    #[error("rank {rank} ended before it joined: {status}")]
    EndedEarly {
        /// The rank.
        rank: usize,
        /// Its exit status.
        status: String,
        /// Its exit code, if it has one.
        code: Option<u8>,
    },
    /// Ranks did not join in time.
    #[error(
        "{} missing after {seconds} s; present: {}\nhint: start as many processes as there are \
         ranks, all with the same rendezvous address",
        ranks(missing),
        present.join(", ")
    )]
    Missing {
        /// How long rank 0 waited.
        seconds: u64,
        /// The ranks that did not come.
        missing: Vec<usize>,
        /// The ranks that came, with their hosts.
        present: Vec<String>,
    },
    /// Rank 0 cannot be reached.
    #[error(
        "rank {rank} does not reach rank 0 at {address} within {seconds} s: {cause}\nhint: check \
         that rank 0 runs and that this host may connect to it"
    )]
    Unreachable {
        /// This rank.
        rank: usize,
        /// Where rank 0 should listen.
        address: String,
        /// How long the rank tried.
        seconds: u64,
        /// What the system says.
        cause: String,
    },
    /// Ranks differ in something that all must share. The message is the same on every rank.
    #[error("{message}")]
    Different {
        /// The fact, the ranks and a hint.
        message: String,
    },
    /// A rank failed or was lost.
    #[error("{0}")]
    Ended(Notice),
    /// Two ranks are not in the same collective: a bug, or different programs.
    #[error(
        "rank {rank} is in operation {theirs} and this rank is in {ours}\nhint: start all ranks \
         with the same program and settings"
    )]
    OutOfStep {
        /// The other rank.
        rank: usize,
        /// Number, name and bytes of its operation.
        theirs: String,
        /// The same of this rank.
        ours: String,
    },
}

/// `rank 3 is` or `ranks 3, 7 are`.
fn ranks(list: &[usize]) -> String {
    let numbers: Vec<String> = list.iter().map(usize::to_string).collect();
    match list {
        [_] => format!("rank {} is", numbers.concat()),
        _ => format!("ranks {} are", numbers.join(", ")),
    }
}
