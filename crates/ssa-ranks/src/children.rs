//! The ranks that this process starts on its host.

use std::env;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::environment::{HOST, LOCAL_RANK, LOCAL_SIZE, PORT, RANK, RUN, SIZE};
use crate::world::World;
use crate::{RanksError, Result};

/// Tells a process that it was started by a rank, whose end it sees at its standard input.
const PARENT: &str = "SSA_PARENT_RANK";

/// The wait between two looks at the children.
const TICK: Duration = Duration::from_millis(10);

/// Started ranks. Those that still run are killed when this value is dropped.
#[derive(Debug, Default)]
pub struct Children(Vec<(usize, Child)>);

impl Children {
    /// Starts the ranks after this one that it has to start: the same program with the same
    /// arguments, and variables like those of torchrun.
    ///
    /// # Errors
    /// [`RanksError::Start`].
    pub fn start(world: &World) -> Result<Self> {
        let mut children = Self::default();
        for number in 1..=world.children {
            let rank = world.rank + number;
            let start = || {
                Command::new(env::current_exe()?)
                    .args(env::args_os().skip(1))
                    .env(RANK, rank.to_string())
                    .env(SIZE, world.size.to_string())
                    .env(LOCAL_RANK, number.to_string())
                    .env(LOCAL_SIZE, world.local_size.to_string())
                    .env(HOST, &world.host)
                    .env(PORT, world.port.to_string())
                    .env(RUN, &world.token)
                    .env(PARENT, world.rank.to_string())
                    .stdin(Stdio::piped())
                    .spawn()
            };
            let child = start()
                .map_err(|error: io::Error| RanksError::Start { rank, cause: error.to_string() })?;
            children.0.push((rank, child));
        }
        Ok(children)
    }

    /// Fails if a child has ended.
    ///
    /// # Errors
    /// [`RanksError::EndedEarly`].
    pub fn check(&mut self) -> Result<()> {
        for (rank, child) in &mut self.0 {
            if let Ok(Some(status)) = child.try_wait() {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                let (rank, status) = (*rank, described(status));
                return Err(RanksError::EndedEarly { rank, status, code });
            }
        }
        Ok(())
    }

    /// Waits until all children have ended by themselves, at most for `patience`.
    pub fn wait(&mut self, patience: Duration) {
        let start = Instant::now();
        let runs = |(_, child): &mut (usize, Child)| matches!(child.try_wait(), Ok(None));
        while self.0.iter_mut().any(runs) && start.elapsed() < patience {
            thread::sleep(TICK);
        }
    }

    /// Kills all children that still run, stopped ones included.
    pub fn kill(&mut self) {
        for (_, child) in &mut self.0 {
            // One that has ended already cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill();
    }
}

fn described(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Calls `end` when the rank that started this process is gone, if there is one.
///
/// # Errors
/// [`RanksError::Start`] if the system has no thread for this.
pub fn end_with_parent(rank: usize, end: impl FnOnce() + Send + 'static) -> Result<()> {
    if env::var_os(PARENT).is_none() {
        return Ok(());
    }
    let watch = move || {
        // Nobody writes to this pipe: reading ends with the process at its other end.
        let _ = io::stdin().lock().read(&mut [0]);
        end();
    };
    let thread = thread::Builder::new().name("ranks: parent".to_owned()).spawn(watch);
    thread.map(drop).map_err(|error| RanksError::Start { rank, cause: error.to_string() })
}
