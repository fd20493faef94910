//! The roll call: rank 0 listens, the others join, and all learn where the others are.

use std::io::{self, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::{Control, OnEnd, Peer};
use crate::fact::Fact;
use crate::mesh::Mesh;
use crate::message::{Member, Message};
use crate::ranks::Ranks;
use crate::world::{World, host_name};
use crate::{RanksError, Result};

/// The wait between two attempts to connect or to accept.
const RETRY: Duration = Duration::from_millis(20);

/// How long a process that has connected may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);

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

/// The place where the ranks of a run meet. Rank 0 has the listener.
#[derive(Debug)]
pub struct Rendezvous {
    world: World,
    listener: Option<TcpListener>,
}

/// A process that has joined rank 0.
struct Joined {
    rank: usize,
    member: Member,
    facts: Vec<Fact>,
    stream: TcpStream,
}

impl Rendezvous {
    /// Prepares to meet: rank 0 listens from now on. A port of 0 is any free one.
    ///
    /// # Errors
    /// [`RanksError::Listen`].
    pub fn new(mut world: World) -> Result<Self> {
        if world.rank > 0 {
            return Ok(Self { world, listener: None });
        }
        let address = format!("{}:{}", world.interface(), world.port);
        let error = |cause: io::Error| RanksError::Listen {
            address: address.clone(),
            cause: cause.to_string(),
        };
        let listener = TcpListener::bind(&address).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        world.port = listener.local_addr().map_err(error)?.port();
        Ok(Self { world, listener: Some(listener) })
    }

    /// The world with the port on which rank 0 listens.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Waits for all ranks, compares their facts with those of rank 0, and connects all pairs.
    ///
    /// `check` is called while rank 0 waits, and ends the wait with its error. `on_end` is called
    /// when another rank has ended and this one has not ended by itself within a grace period; it
    /// should end the process.
    ///
    /// # Errors
    /// On every rank: [`RanksError::Missing`] if a rank does not come in time;
    /// [`RanksError::Different`] if a fact differs. [`RanksError::Unreachable`] if rank 0 does not
    /// answer; the error of `check`.
    pub fn meet(
        self,
        facts: Vec<Fact>,
        deadlines: Deadlines,
        check: impl FnMut() -> Result<()>,
        on_end: impl Fn(&RanksError) + Send + Sync + 'static,
    ) -> Result<Ranks> {
        let Self { world, listener } = self;
        let unreachable = |cause: io::Error| unreachable(&world, deadlines, &cause);
        let data = TcpListener::bind((world.interface(), 0)).map_err(unreachable)?;
        data.set_nonblocking(true).map_err(unreachable)?;
        let port = data.local_addr().map_err(unreachable)?.port();
        let host = host_name();
        let (members, peers) = match &listener {
            Some(listener) => {
                let own = Member { host: host.clone(), address: String::new(), port };
                roll_call(&world, listener, own, &facts, deadlines, check)?
            }
            None => join(&world, &host, port, facts, deadlines)?,
        };
        let links = connect_all(&world, &members, &data, deadlines)?;
        let mesh = Mesh::new(world.rank, links);
        let handles = mesh.handles().map_err(unreachable)?;
        let on_end: OnEnd = Box::new(on_end);
        let control = Control::start((world.rank, host), peers, handles, deadlines, on_end);
        let control = control.map_err(unreachable)?;
        let hosts = members.into_iter().map(|member| member.host).collect();
        Ok(Ranks::connected(world.rank, hosts, mesh, control))
    }
}

fn unreachable(world: &World, deadlines: Deadlines, cause: &io::Error) -> RanksError {
    RanksError::Unreachable {
        rank: world.rank,
        address: world.address(),
        seconds: deadlines.join.as_secs(),
        cause: cause.to_string(),
    }
}

/// Rank 0: collects all ranks and tells them of each other.
fn roll_call(
    world: &World,
    listener: &TcpListener,
    own: Member,
    facts: &[Fact],
    deadlines: Deadlines,
    mut check: impl FnMut() -> Result<()>,
) -> Result<(Vec<Member>, Vec<Peer>)> {
    let start = Instant::now();
    let mut joined: Vec<Joined> = Vec::new();
    let collected = loop {
        if joined.len() + 1 == world.size {
            break compare(world, &own.host, facts, &joined);
        }
        if let Err(error) = check() {
            break Err(error);
        }
        if start.elapsed() > deadlines.join {
            break Err(missing(world, &own.host, &joined, deadlines));
        }
        match listener.accept() {
            Ok((stream, address)) => {
                // A process that does not introduce itself as a rank of this run is turned away.
                if let Some(process) = introduced(world, stream, address) {
                    let taken = joined.iter().any(|other| other.rank == process.rank);
                    joined.push(process);
                    if taken {
                        break Err(twice(&joined));
                    }
                }
            }
            Err(_) => thread::sleep(RETRY),
        }
    };
    if let Err(error) = collected {
        let message = error.to_string();
        let again = !matches!(error, RanksError::Different { .. });
        for process in &mut joined {
            // A rank that is gone needs no message.
            let refusal = Message::Refuse { message: message.clone(), again };
            let _ = refusal.write(&mut process.stream);
        }
        return Err(error);
    }
    joined.sort_by_key(|process| process.rank);
    let mut members = vec![own];
    members.extend(joined.iter().map(|process| process.member.clone()));
    let roster = Message::Roster { members: members.clone() };
    let mut peers = Vec::new();
    for Joined { rank, member, mut stream, .. } in joined {
        // The heartbeat notices a rank that is gone.
        let _ = roster.write(&mut stream);
        peers.push(Peer { rank, host: member.host, stream });
    }
    Ok((members, peers))
}

/// The rank at the other end of a new connection, if it belongs to this run.
fn introduced(world: &World, mut stream: TcpStream, address: SocketAddr) -> Option<Joined> {
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(INTRODUCTION)).ok()?;
    let message = Message::read(&mut BufReader::new(&stream)).ok()??;
    let Message::Join { token, rank, size, host, port, facts } = message else { return None };
    if token != world.token {
        let message = format!("another run listens on {}", world.address());
        let _ = Message::Refuse { message, again: false }.write(&mut stream);
        return None;
    }
    let mut facts = facts;
    facts.insert(0, world_size(size));
    let member = Member { host, address: address.ip().to_string(), port };
    Some(Joined { rank, member, facts, stream })
}

fn world_size(size: usize) -> Fact {
    Fact::new("number of ranks", size, "start all ranks for the same number of ranks")
}

fn twice(joined: &[Joined]) -> RanksError {
    let last = joined.last();
    let rank = last.map_or(0, |process| process.rank);
    let hosts: Vec<&str> = joined
        .iter()
        .filter(|process| process.rank == rank)
        .map(|process| process.member.host.as_str())
        .collect();
    let message = format!(
        "two processes are rank {rank}, on {}\nhint: give each process its own rank",
        hosts.join(" and ")
    );
    RanksError::Different { message }
}

fn missing(world: &World, own: &str, joined: &[Joined], deadlines: Deadlines) -> RanksError {
    let is_there = |rank: &usize| joined.iter().any(|process| process.rank == *rank);
    let mut present = vec![format!("rank 0 on {own}")];
    present.extend(
        joined.iter().map(|process| format!("rank {} on {}", process.rank, process.member.host)),
    );
    RanksError::Missing {
        seconds: deadlines.join.as_secs(),
        missing: (1..world.size).filter(|rank| !is_there(rank)).collect(),
        present,
    }
}

/// Compares the facts of all ranks with those of rank 0.
fn compare(world: &World, own: &str, facts: &[Fact], joined: &[Joined]) -> Result<()> {
    if let Some(process) = joined.iter().find(|process| !(1..world.size).contains(&process.rank)) {
        let (rank, last) = (process.rank, world.size - 1);
        let host = &process.member.host;
        let message = format!(
            "rank {rank} on {host} joined rank 0 on {own}, but ranks are 0 to {last}\nhint: start \
             all ranks for the same number of ranks"
        );
        return Err(RanksError::Different { message });
    }
    let all = [world_size(world.size)];
    for (index, fact) in all.iter().chain(facts).enumerate() {
        let value = |process: &'_ Joined| {
            process.facts.get(index).map_or("nothing", |fact| fact.value.as_str()).to_owned()
        };
        let values: Vec<String> = joined.iter().map(value).collect();
        let others: Vec<(usize, &str, &str)> = joined
            .iter()
            .zip(&values)
            .map(|(process, value)| (process.rank, process.member.host.as_str(), value.as_str()))
            .collect();
        if let Some(message) = fact.difference(&others) {
            return Err(RanksError::Different { message });
        }
    }
    Ok(())
}

/// Another rank: joins rank 0 and learns of the others.
fn join(
    world: &World,
    host: &str,
    port: u16,
    facts: Vec<Fact>,
    deadlines: Deadlines,
) -> Result<(Vec<Member>, Vec<Peer>)> {
    let failed = |cause: io::Error| unreachable(world, deadlines, &cause);
    let end = Instant::now() + deadlines.join;
    let mut stream = connect(&world.address(), end).map_err(failed)?;
    // Rank 0 answers when all have come, or when its own deadline is over.
    stream.set_read_timeout(Some(deadlines.join + INTRODUCTION)).map_err(failed)?;
    let (token, rank, size) = (world.token.clone(), world.rank, world.size);
    let join = Message::Join { token, rank, size, host: host.to_owned(), port, facts };
    join.write(&mut stream).map_err(failed)?;
    match Message::read(&mut BufReader::new(&stream)).map_err(failed)? {
        Some(Message::Roster { mut members }) => {
            let reached = stream.peer_addr().map_err(failed)?.ip();
            for member in &mut members {
                // Rank 0 does not know its own address, and sees the ranks of its host as local.
                let seen = member.address.parse::<IpAddr>().ok();
                if seen.is_none_or(|address| address.is_loopback()) {
                    member.address = reached.to_string();
                }
            }
            let host = members.first().map(|member| member.host.clone()).unwrap_or_default();
            Ok((members, vec![Peer { rank: 0, host, stream }]))
        }
        Some(Message::Refuse { message, again: false }) => Err(RanksError::Different { message }),
        Some(Message::Refuse { message, again: true }) => Err(failed(io::Error::other(message))),
        _ => Err(failed(io::Error::other("rank 0 ended during the roll call"))),
    }
}

/// Connects this rank to all others: it calls those below and is called by those above.
fn connect_all(
    world: &World,
    members: &[Member],
    listener: &TcpListener,
    deadlines: Deadlines,
) -> Result<Vec<Option<TcpStream>>> {
    let end = Instant::now() + deadlines.join;
    let mut links: Vec<Option<TcpStream>> = members.iter().map(|_| None).collect();
    let mut connect_one = |rank: usize, stream: TcpStream| {
        stream.set_read_timeout(None)?;
        links[rank] = Some(stream);
        Ok::<_, io::Error>(())
    };
    for (rank, member) in members.iter().enumerate().take(world.rank) {
        let address = format!("{}:{}", member.address, member.port);
        let call = || {
            let mut stream = connect(&address, end)?;
            let (token, rank) = (world.token.clone(), world.rank);
            Message::Hello { token, rank }.write(&mut stream)?;
            Ok(stream)
        };
        let connected = call().and_then(|stream| connect_one(rank, stream));
        connected.map_err(|cause: io::Error| {
            let cause = io::Error::new(cause.kind(), format!("rank {rank} at {address}: {cause}"));
            unreachable(world, deadlines, &cause)
        })?;
    }
    let mut waiting = members.len() - 1 - world.rank;
    while waiting > 0 {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(rank) = greeted(world, &stream) {
                    let connected = connect_one(rank, stream);
                    connected.map_err(|cause| unreachable(world, deadlines, &cause))?;
                    waiting -= 1;
                }
            }
            Err(_) if Instant::now() < end => thread::sleep(RETRY),
            Err(cause) => {
                let cause = format!("{waiting} ranks above this one did not connect: {cause}");
                return Err(unreachable(world, deadlines, &io::Error::other(cause)));
            }
        }
    }
    Ok(links)
}

/// The rank above this one at the other end of a connection.
fn greeted(world: &World, stream: &TcpStream) -> Option<usize> {
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(INTRODUCTION)).ok()?;
    // A reader that reads ahead could swallow the first exchange.
    match Message::read(&mut BufReader::with_capacity(1, stream)).ok()?? {
        Message::Hello { token, rank }
            if token == world.token && (world.rank + 1..world.size).contains(&rank) =>
        {
            Some(rank)
        }
        _ => None,
    }
}

/// Connects to an address, again and again until `end`.
fn connect(address: &str, end: Instant) -> io::Result<TcpStream> {
    loop {
        let attempt = || {
            let found = address.to_socket_addrs()?;
            // The rendezvous listens on all IPv4 interfaces.
            let first = found.min_by_key(|address| address.is_ipv6());
            let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let left = end.saturating_duration_since(Instant::now()).max(RETRY);
            let stream = TcpStream::connect_timeout(&first.unwrap_or(none), left)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match attempt() {
            Err(_) if Instant::now() < end => thread::sleep(RETRY),
            result => return result,
        }
    }
}
