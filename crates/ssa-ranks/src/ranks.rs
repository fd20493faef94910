//! The connected ranks of a run, and their collectives.

use std::ops::Range;
use std::sync::Arc;

use crate::control::{Alarm, Control};
use crate::fact::Fact;
use crate::mesh::{Fault, Mesh};
use crate::shards::ShardMap;
use crate::{RanksError, Result};

/// The ranks of a run as one of them sees them. All ranks must call the same collectives in the
/// same order.
///
/// A process without others is rank 0 of 1: its collectives do nothing.
pub struct Ranks {
    rank: usize,
    /// By rank.
    hosts: Vec<String>,
    /// `None` for a process without others.
    connections: Option<(Mesh, Arc<Control>)>,
}

/// What is sent to, or received from, each rank.
type Parts<T> = Vec<Vec<T>>;

impl Default for Ranks {
    fn default() -> Self {
        Self::alone()
    }
}

impl Ranks {
    /// A process without others.
    pub fn alone() -> Self {
        Self { rank: 0, hosts: vec![String::new()], connections: None }
    }

    pub(crate) fn connected(
        rank: usize,
        hosts: Vec<String>,
        mesh: Mesh,
        control: Arc<Control>,
    ) -> Self {
        Self { rank, hosts, connections: Some((mesh, control)) }
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The name of the host of a rank; empty for one that does not exist.
    pub fn host(&self, rank: usize) -> &str {
        self.hosts.get(rank).map_or("", String::as_str)
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are no others.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is rank 0, which decides.
    pub fn is_leader(&self) -> bool {
        self.rank == 0
    }

    /// Ends all ranks when this one fails.
    pub fn alarm(&self) -> Alarm {
        Alarm(self.connections.as_ref().map(|(_, control)| control.clone()))
    }

    /// Says that a step begins, counted from 1, for messages about this rank.
    pub fn begin_step(&self, step: usize) {
        if let Some((_, control)) = &self.connections {
            control.at(Some(step), "compute the gradient");
        }
    }

    /// Says what this rank does between two collectives, for messages about it.
    pub fn begin(&self, operation: &str) {
        if let Some((_, control)) = &self.connections {
            control.at(None, operation);
        }
    }

    /// Tells whether another rank has ended, for work that waits outside of this crate.
    pub fn watch(&self) -> impl Fn() -> bool + Send + 'static {
        let control = self.connections.as_ref().map(|(_, control)| control.clone());
        move || control.as_ref().is_some_and(|control| control.check().is_err())
    }

    /// After a failure outside of this crate: waits a moment for the notice that another rank has
    /// ended, which may be its cause.
    ///
    /// # Errors
    /// [`RanksError::Ended`] if the notice came.
    pub fn await_notice(&self) -> Result<()> {
        self.connections.as_ref().map_or(Ok(()), |(_, control)| control.await_notice())
    }

    /// Checks that a fact is the same on all ranks.
    ///
    /// # Errors
    /// [`RanksError::Different`] on every rank.
    pub fn agree(&mut self, fact: &Fact) -> Result<()> {
        let name = format!("compare the {}", fact.name);
        let values = self.all_gather_bytes(&name, fact.value.as_bytes())?;
        let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
        // The message has the value of rank 0, on every rank.
        let of_leader = Fact::new(&fact.name, &values[0], &fact.remedy);
        let others = (0..).zip(self.hosts.iter().zip(&values));
        let others: Vec<_> = others
            .map(|(rank, (host, value)): (usize, _)| (rank, host.as_str(), value.as_ref()))
            .collect();
        match of_leader.difference(&others) {
            None => Ok(()),
            Some(message) => Err(RanksError::Different { message }),
        }
    }

    /// Sends bytes of rank 0 to all others; `bytes` of the others are replaced.
    ///
    /// # Errors
    /// [`RanksError::Ended`]; [`RanksError::OutOfStep`].
    pub fn broadcast_bytes(&mut self, name: &str, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = (bytes.len() as u64).to_le_bytes();
        self.broadcast_all(name, &mut [&mut length])?;
        bytes.resize(u64::from_le_bytes(length) as usize, 0);
        self.broadcast_all(name, &mut [bytes])
    }

    /// Sends numbers of rank 0 to all others, into buffers of the same lengths.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn broadcast(&mut self, name: &str, buffers: &mut [&mut [f32]]) -> Result<()> {
        let mut bytes: Vec<&mut [u8]> =
            buffers.iter_mut().map(|buffer| bytemuck::cast_slice_mut(buffer)).collect();
        self.broadcast_all(name, &mut bytes)
    }

    /// Collects `counts[r]` numbers of every rank r, on all ranks.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn all_gather_numbers(
        &mut self,
        name: &str,
        own: &[f64],
        counts: &[usize],
    ) -> Result<Vec<Vec<f64>>> {
        let mut all: Vec<Vec<f64>> = counts.iter().map(|&count| vec![0.0; count]).collect();
        let out = self.to_others(&[bytemuck::cast_slice(own)]);
        let into = all.iter_mut().map(|list| vec![bytemuck::cast_slice_mut(list)]).collect();
        self.exchange(name, &out, into)?;
        own.clone_into(&mut all[self.rank]);
        Ok(all)
    }

    /// Sends its piece of every buffer to each rank; returns what each rank sent: `[r][i]` is the
    /// own piece of buffer i on rank r, which is empty for this rank itself. `first` is the number
    /// of the first buffer in the map.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn all_to_all(
        &mut self,
        name: &str,
        buffers: &[&[f32]],
        map: &ShardMap,
        first: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let (own, size) = (self.rank, self.size());
        let pieces = |rank: usize| -> Vec<&[u8]> {
            let pieces = buffers.iter().zip(first..).map(|(buffer, parameter)| {
                bytemuck::cast_slice(within(buffer, map.piece(parameter, rank)))
            });
            pieces.collect()
        };
        let out: Parts<&[u8]> = (0..size).map(pieces).collect();
        let room = |rank: usize| {
            let of = |(index, buffer): (usize, &&[f32])| {
                let piece = map.piece(first + index, own);
                let length = if rank == own { 0 } else { within(buffer, piece).len() };
                vec![0.0_f32; length]
            };
            buffers.iter().enumerate().map(of).collect::<Vec<_>>()
        };
        let mut received: Vec<Vec<Vec<f32>>> = (0..size).map(room).collect();
        let into = received.iter_mut().map(|list| as_bytes(list.iter_mut())).collect();
        self.exchange(name, &out, into)?;
        Ok(received)
    }

    /// Completes buffers of which every rank has its own piece.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn all_gather(
        &mut self,
        name: &str,
        buffers: &mut [&mut [f32]],
        map: &ShardMap,
    ) -> Result<()> {
        let (own, size) = (self.rank, self.size());
        let mut mine: Vec<&[u8]> = Vec::new();
        let mut into: Parts<&mut [u8]> = (0..size).map(|_| Vec::new()).collect();
        for (parameter, buffer) in buffers.iter_mut().enumerate() {
            for (rank, piece) in split(buffer, map, parameter).into_iter().enumerate() {
                if rank == own {
                    mine.push(bytemuck::cast_slice(piece));
                } else {
                    into[rank].push(bytemuck::cast_slice_mut(piece));
                }
            }
        }
        let out = self.to_others(&mine);
        self.exchange(name, &out, into)
    }

    /// Collects the pieces of all ranks in whole buffers on rank 0. Other ranks give no buffers.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn gather(
        &mut self,
        name: &str,
        own: &[&[f32]],
        whole: &mut [&mut [f32]],
        map: &ShardMap,
    ) -> Result<()> {
        let size = self.size();
        let mut out: Parts<&[u8]> = (0..size).map(|_| Vec::new()).collect();
        let mut into: Parts<&mut [u8]> = (0..size).map(|_| Vec::new()).collect();
        if !self.is_leader() {
            out[0] = own.iter().map(|piece| bytemuck::cast_slice(piece)).collect();
        }
        for (parameter, buffer) in whole.iter_mut().enumerate() {
            for (rank, piece) in split(buffer, map, parameter).into_iter().enumerate() {
                match (rank, own.get(parameter)) {
                    (0, Some(own)) => piece.copy_from_slice(own),
                    _ => into[rank].push(bytemuck::cast_slice_mut(piece)),
                }
            }
        }
        self.exchange(name, &out, into)
    }

    /// Gives each rank its pieces of whole buffers on rank 0. Other ranks give no buffers.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn scatter(
        &mut self,
        name: &str,
        whole: &[&[f32]],
        own: &mut [&mut [f32]],
        map: &ShardMap,
    ) -> Result<()> {
        let size = self.size();
        let pieces = |rank: usize| {
            let pieces = whole.iter().enumerate();
            pieces
                .map(|(parameter, buffer)| within(buffer, map.piece(parameter, rank)))
                .collect::<Vec<_>>()
        };
        let out: Parts<&[u8]> = (0..size)
            .map(|rank| pieces(rank).into_iter().map(bytemuck::cast_slice).collect())
            .collect();
        let mut into: Parts<&mut [u8]> = (0..size).map(|_| Vec::new()).collect();
        if self.is_leader() {
            for (piece, whole) in own.iter_mut().zip(pieces(0)) {
                piece.copy_from_slice(whole);
            }
        } else {
            into[0] = as_bytes(own.iter_mut());
        }
        self.exchange(name, &out, into)
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn barrier(&mut self, name: &str) -> Result<()> {
        let nothing = self.to_others(&[]);
        let into = (0..self.size()).map(|_| Vec::new()).collect();
        self.exchange(name, &nothing, into)
    }

    /// Ends the collective work as planned, on all ranks together. Afterwards no rank notices the
    /// end of another one.
    ///
    /// # Errors
    /// As [`broadcast_bytes`](Self::broadcast_bytes).
    pub fn leave(&mut self) -> Result<()> {
        self.barrier("leave")?;
        if let Some((_, control)) = self.connections.take() {
            control.leave();
        }
        Ok(())
    }

    fn all_gather_bytes(&mut self, name: &str, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let ones = vec![1; self.size()];
        let lengths = self.all_gather_numbers(name, &[own.len() as f64], &ones)?;
        let mut all: Vec<Vec<u8>> = lengths
            .iter()
            .map(|length| vec![0; length.first().map_or(0, |&n| n as usize)])
            .collect();
        let out = self.to_others(&[own]);
        let into = all.iter_mut().map(|bytes| vec![bytes.as_mut_slice()]).collect();
        self.exchange(name, &out, into)?;
        own.clone_into(&mut all[self.rank]);
        Ok(all)
    }

    /// Buffers of rank 0 to all others.
    fn broadcast_all(&mut self, name: &str, buffers: &mut [&mut [u8]]) -> Result<()> {
        let (mut out, mut into): (Parts<&[u8]>, Parts<&mut [u8]>) =
            (0..self.size()).map(|_| (Vec::new(), Vec::new())).unzip();
        if self.is_leader() {
            let all: Vec<&[u8]> = buffers.iter().map(|buffer| &**buffer).collect();
            out = self.to_others(&all);
        } else {
            into[0] = buffers.iter_mut().map(|buffer| &mut **buffer).collect();
        }
        self.exchange(name, &out, into)
    }

    /// The same parts for every rank.
    fn to_others<'a>(&self, parts: &[&'a [u8]]) -> Parts<&'a [u8]> {
        vec![parts.to_vec(); self.size()]
    }

    fn exchange(
        &mut self,
        name: &str,
        out: &Parts<&[u8]>,
        mut into: Parts<&mut [u8]>,
    ) -> Result<()> {
        let Some((mesh, control)) = &mut self.connections else { return Ok(()) };
        control.check()?;
        control.at(None, name);
        mesh.exchange(name, out, &mut into).map_err(|fault| match fault {
            Fault::Broken { rank, cause } => control.explain(rank, &cause),
            Fault::Thread { cause } => RanksError::Thread { cause: cause.to_string() },
            Fault::OutOfStep { rank, theirs, ours } => RanksError::OutOfStep { rank, theirs, ours },
        })
    }
}

/// A part of a buffer; empty where the buffer ends before it, as that of a frozen parameter does.
fn within(buffer: &[f32], range: Range<usize>) -> &[f32] {
    buffer.get(range).unwrap_or_default()
}

/// The pieces of a buffer in the order of the ranks; empty for a buffer without elements.
fn split<'a>(buffer: &'a mut [f32], map: &ShardMap, parameter: usize) -> Vec<&'a mut [f32]> {
    let mut rest = buffer;
    let cut = |piece: Range<usize>| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut_checked(piece.len())?;
        rest = after;
        Some(piece)
    };
    map.pieces(parameter).map(cut).map(Option::unwrap_or_default).collect()
}

fn as_bytes<'a, B: AsMut<[f32]> + 'a>(
    buffers: impl Iterator<Item = &'a mut B>,
) -> Vec<&'a mut [u8]> {
    buffers.map(|buffer| bytemuck::cast_slice_mut(buffer.as_mut())).collect()
}
