//! What ranks tell each other on the control connection: one JSON object a line.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use crate::fact::Fact;

/// Where a rank is in its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The step, counted from 1; 0 before the first.
    pub step: usize,
    /// The collective or other operation.
    pub operation: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            0 => write!(f, "before the first step")?,
            step => write!(f, "in step {step}")?,
        }
        if self.operation.is_empty() { Ok(()) } else { write!(f, " ({})", self.operation) }
    }
}

/// Why a rank ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It reported an error.
    Failed {
        /// The message of the error, hints included.
        message: String,
        /// The exit code with which it ends.
        code: u8,
    },
    /// It closed its connection without a word, or fell silent.
    Lost(String),
}

/// The end of a rank, as all others hear of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The rank.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Where it was.
    pub place: Place,
    /// Why it ended.
    pub cause: Cause,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, host, place, cause } = self;
        match cause {
            Cause::Failed { message, .. } => {
                write!(f, "rank {rank} on {host} failed {place}: {message}")
            }
            Cause::Lost(how) => write!(
                f,
                "rank {rank} on {host} was lost {place}: {how}\nhint: run the same command again; \
                 it continues from the last checkpoint"
            ),
        }
    }
}

/// A rank that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) host: String,
    /// The address as rank 0 sees it.
    pub(crate) address: String,
    /// The port for the other ranks.
    pub(crate) port: u16,
}

/// The longest line in bytes: far above a roster of all ranks, and little memory if a stranger
/// sends it.
const LONGEST: u64 = 16 << 20;

/// A line of the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// A rank presents itself to rank 0.
    Join { token: String, rank: usize, size: usize, host: String, port: u16, facts: Vec<Fact> },
    /// Rank 0 refuses all ranks, for the same reason.
    Refuse { message: String, again: bool },
    /// All ranks are there.
    Roster { members: Vec<Member> },
    /// A rank presents itself to another one.
    Hello { token: String, rank: usize },
    /// A heartbeat.
    Alive(Place),
    /// A rank failed or was lost.
    Ended(Notice),
    /// The sender ends as planned.
    Left,
}

impl Message {
    pub(crate) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        stream.write_all(&line)
    }

    /// The next message; `None` at the end of the stream. A longer line is cut, and is no message.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        match stream.take(LONGEST).read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn a_line_without_end_is_no_message() {
        let mut endless = BufReader::new(io::repeat(b'['));
        let error = Message::read(&mut endless).unwrap_err();
        assert!(error.to_string().contains("expected value at line 1"), "{error}");
        let mut line = Vec::new();
        Message::Left.write(&mut line).unwrap();
        assert_eq!(Message::read(&mut &line[..]).unwrap(), Some(Message::Left));
        assert_eq!(Message::read(&mut &b""[..]).unwrap(), None);
    }
}
