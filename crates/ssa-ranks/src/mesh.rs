//! The connections between all pairs of ranks, and the one exchange that every collective is.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// Bytes that may be sent to a rank before receiving, because the system buffers them.
const BUFFERED: usize = 16 << 10;

/// The longest name of an operation.
const LONGEST_NAME: usize = 64;

/// Connections to all other ranks.
#[derive(Debug)]
pub(crate) struct Mesh {
    rank: usize,
    /// By rank; `None` for this one.
    links: Vec<Option<TcpStream>>,
    /// Exchanges so far.
    count: u64,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection to a rank broke.
    Broken { rank: usize, cause: io::Error },
    /// The system refuses to start a thread.
    Thread { cause: io::Error },
    /// A rank is in another operation.
    OutOfStep { rank: usize, theirs: String, ours: String },
}

/// What precedes the bytes of an operation.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    count: u64,
    bytes: u64,
    name: String,
}

impl Mesh {
    pub(crate) fn new(rank: usize, links: Vec<Option<TcpStream>>) -> Self {
        Self { rank, links, count: 0 }
    }

    /// Handles to close all connections with.
    pub(crate) fn handles(&self) -> io::Result<Vec<TcpStream>> {
        self.links.iter().flatten().map(TcpStream::try_clone).collect()
    }

    /// Sends `out[r]` to every other rank r and receives `into[r]` from it. All ranks must call
    /// this with the same name, and sizes that agree.
    ///
    /// In round k, a rank sends to the k-th rank after it and receives from the k-th before it.
    pub(crate) fn exchange(
        &mut self,
        name: &str,
        out: &[Vec<&[u8]>],
        into: &mut [Vec<&mut [u8]>],
    ) -> Result<(), Fault> {
        self.count += 1;
        let (mesh, size) = (&*self, self.links.len());
        let send = || {
            let others = (1..size).map(|round| (mesh.rank + round) % size);
            others.into_iter().try_for_each(|rank| mesh.send(rank, name, &out[rank]))
        };
        let receive = |into: &mut [Vec<&mut [u8]>]| {
            let others = (1..size).map(|round| (mesh.rank + size - round) % size);
            others.into_iter().try_for_each(|rank| mesh.receive(rank, name, &mut into[rank]))
        };
        let most = out.iter().map(|parts| length(parts)).max().unwrap_or(0);
        if most <= BUFFERED as u64 {
            return send().and_then(|()| receive(into));
        }
        thread::scope(|scope| {
            let sender = thread::Builder::new().spawn_scoped(scope, send);
            let sender = sender.map_err(|cause| Fault::Thread { cause })?;
            let received = receive(into);
            if received.is_err() {
                // The sender may wait for a rank that will never read.
                mesh.close();
            }
            let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            received.and(sent)
        })
    }

    fn send(&self, rank: usize, name: &str, parts: &[&[u8]]) -> Result<(), Fault> {
        let broken = |cause| Fault::Broken { rank, cause };
        let Some(mut link) = self.links[rank].as_ref() else { return Ok(()) };
        let header = self.header(name, length(parts)).to_bytes();
        let mut slices: Vec<IoSlice<'_>> = vec![IoSlice::new(&header)];
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        write_all(&mut link, &mut slices).map_err(broken)
    }

    fn receive(&self, rank: usize, name: &str, parts: &mut [&mut [u8]]) -> Result<(), Fault> {
        let broken = |cause| Fault::Broken { rank, cause };
        let Some(mut link) = self.links[rank].as_ref() else { return Ok(()) };
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let theirs = Header::read(&mut link).map_err(broken)?;
        let ours = self.header(name, bytes);
        if theirs != ours {
            let [theirs, ours] = [theirs, ours].map(|header| header.to_string());
            return Err(Fault::OutOfStep { rank, theirs, ours });
        }
        parts.iter_mut().try_for_each(|part| link.read_exact(part)).map_err(broken)
    }

    fn header(&self, name: &str, bytes: u64) -> Header {
        Header { count: self.count, bytes, name: name.chars().take(LONGEST_NAME).collect() }
    }

    fn close(&self) {
        close(self.links.iter().flatten());
    }
}

/// Closes connections; whoever waits for them gets an error.
pub(crate) fn close<'a>(links: impl IntoIterator<Item = &'a TcpStream>) {
    for link in links {
        // One that is closed already is what this wants.
        let _ = link.shutdown(Shutdown::Both);
    }
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend(self.bytes.to_le_bytes());
        bytes.push(self.name.len() as u8);
        bytes.extend(self.name.as_bytes());
        bytes
    }

    fn read(link: &mut impl Read) -> io::Result<Self> {
        let (mut count, mut bytes, mut len) = ([0; 8], [0; 8], [0; 1]);
        link.read_exact(&mut count)?;
        link.read_exact(&mut bytes)?;
        link.read_exact(&mut len)?;
        let mut name = vec![0; usize::from(len[0])];
        link.read_exact(&mut name)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Self { count: u64::from_le_bytes(count), bytes: u64::from_le_bytes(bytes), name })
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}` with {} bytes", self.count, self.name, self.bytes)
    }
}

fn length(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// Writes all slices.
fn write_all(link: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Drops slices without bytes, which would look like the end of the stream.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match link.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
