//! The set-up of a mesh: every process dials every other process, all at the same time.
//!
//! So each pair has two connections at first; on both, both ends prove that they know the secret. The connection that the
//! process with the higher index dialled becomes the pair's link. The other one is a watch: it shows the process with the
//! lower index at once that a peer is gone, even if the peer never dialled. Watches are dropped when the set-up ends.
//!
//! A stranger at the listener does no harm: it is rejected, or it stays silent and is dropped when the set-up ends or when
//! too many strangers wait. A failure at a peer's known address, or a peer that has joined and leaves again, ends the set-up
//! at once: an incomplete mesh is useless, and the other processes notice the broken connections.

use std::{
    cmp::Ordering,
    collections::VecDeque,
    io::{self, Read},
    net::SocketAddr,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    rand::{GetRandomFlags, getrandom},
};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::{
    Listener, MeshConfig, MeshError,
    handshake::{Handshake, Identity, LONGEST_MESSAGE, Nonce, Outcome},
    poll::poll_until,
};

/// Upper limit for connections at the listener that have not passed the handshake, in addition to one for each process.
const MAX_STRANGERS: usize = 64;

/// At that limit, the oldest connection is dropped once it is older than this. Until then new ones wait in the system's queue.
const STRANGER_LIMIT: Duration = Duration::from_millis(500);

/// TCP keepalive: a peer whose machine answers no probe counts as gone after 30 s + 6 × 10 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// Connects to every other process: one connection each that has passed the handshake, and `None` at this process's own index.
pub(crate) fn connect_all(listener: &Listener, config: &MeshConfig) -> Result<Vec<Option<Arc<Socket>>>, MeshError> {
    let mut setup = Setup::start(listener, config)?;
    let deadline = Instant::now() + config.connect_deadline;
    loop {
        if listener.lifeline().is_cut() {
            return Err(MeshError::Cut);
        }
        let missing = setup.missing();
        if missing.is_empty() {
            return Ok(setup.links);
        }
        if Instant::now() >= deadline {
            let refused = setup.last_refusal.map(Box::new);
            return Err(MeshError::Absent { processes: missing, after: config.connect_deadline, refused });
        }
        setup.wait(deadline)?;
        setup.accept()?;
        setup.advance_dials()?;
        setup.advance_arrivals()?;
    }
}

struct Setup<'a> {
    listener: &'a Listener,
    identity: Identity,
    links: Vec<Option<Arc<Socket>>>,
    /// Connections that processes with a lower index dialled, by that index. Kept open, because those processes watch them.
    watched_by: Vec<Option<Socket>>,
    dials: Vec<Conversation>,
    /// Oldest first.
    arrivals: VecDeque<Conversation>,
    last_refusal: Option<MeshError>,
}

impl<'a> Setup<'a> {
    fn start(listener: &'a Listener, config: &MeshConfig) -> Result<Self, MeshError> {
        let processes = config.addresses.len();
        if config.process >= processes {
            return Err(MeshError::NoMember { process: config.process, processes });
        }
        let identity = Identity {
            process: config.process,
            processes,
            generation: config.generation,
            run: blake3::hash(config.run.as_bytes()),
            secret: config.secret,
        };
        let mut dials = Vec::with_capacity(processes);
        for (to, &address) in config.addresses.iter().enumerate().filter(|(to, _)| *to != config.process) {
            let socket = dial(listener.local_addr(), address).map_err(|source| MeshError::Connect {
                process: to,
                address,
                source,
            })?;
            let (handshake, hello) = Handshake::dial(&identity, to, &nonce()?);
            dials.push(Conversation::new(socket, address, handshake, Dialling::Connecting { to, hello }));
        }
        let links = vec![None; processes];
        let watched_by = (0..processes).map(|_| None).collect();
        Ok(Self { listener, identity, links, watched_by, dials, arrivals: VecDeque::new(), last_refusal: None })
    }

    fn missing(&self) -> Vec<usize> {
        (0..self.links.len()).filter(|&p| p != self.identity.process && self.links[p].is_none()).collect()
    }

    fn has_room(&self) -> bool {
        self.arrivals.len() < MAX_STRANGERS + self.links.len()
    }

    /// Sleeps until a connection may have advanced, a cut, or `deadline`. Fails if a peer that has joined leaves.
    fn wait(&self, deadline: Instant) -> Result<(), MeshError> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.listener.lifeline().wake(), PollFlags::IN)];
        let mut until = deadline;
        if self.has_room() {
            fds.push(PollFd::new(self.listener, PollFlags::IN));
        } else if let Some(oldest) = self.arrivals.front() {
            until = until.min(oldest.since + STRANGER_LIMIT);
        }
        let first_link = fds.len();
        // Data on a link is the first round of a faster peer. Only the end of a link matters here.
        let joined = || self.links.iter().enumerate().filter_map(|(p, link)| Some((p, link.as_ref()?)));
        fds.extend(joined().map(|(_, link)| PollFd::from_borrowed_fd(link.as_fd(), PollFlags::RDHUP)));
        fds.extend(self.dials.iter().chain(&self.arrivals).map(Conversation::poll_fd));
        poll_until(&mut fds, until)?;
        let ended = joined().zip(&fds[first_link..]).find(|(_, fd)| !fd.revents().is_empty());
        match ended {
            Some(((process, _), _)) => Err(MeshError::PeerGone { process }),
            None => Ok(()),
        }
    }

    fn accept(&mut self) -> Result<(), MeshError> {
        loop {
            if !self.has_room() {
                let is_old = |oldest: &Conversation| oldest.since.elapsed() >= STRANGER_LIMIT;
                if !self.arrivals.front().is_some_and(is_old) {
                    return Ok(());
                }
                self.arrivals.pop_front();
            }
            match self.listener.accept() {
                Ok((socket, address)) => {
                    let handshake = Handshake::accept(nonce()?);
                    self.arrivals.push_back(Conversation::new(socket, address, handshake, Dialling::No));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    // The other end closed the connection before it was accepted: ignored.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(MeshError::Io { operation: "accept a connection", source: error }),
                },
            }
        }
    }

    fn advance_dials(&mut self) -> Result<(), MeshError> {
        let mut waiting = Vec::with_capacity(self.dials.len());
        for mut dial in std::mem::take(&mut self.dials) {
            // A peer that has its link may have finished the set-up and dropped its watches.
            if dial.to().is_some_and(|to| self.links[to].is_some()) {
                continue;
            }
            match dial.advance(&self.identity, |_| true) {
                Outcome::Continue => waiting.push(dial),
                Outcome::Joined(process) if process < self.identity.process => self.link(process, dial.socket)?,
                Outcome::Joined(_) => {
                    dial.proved = true;
                    waiting.push(dial);
                }
                Outcome::Refused(error) => return Err(error),
            }
        }
        self.dials = waiting;
        Ok(())
    }

    fn advance_arrivals(&mut self) -> Result<(), MeshError> {
        for _ in 0..self.arrivals.len() {
            let Some(mut arrival) = self.arrivals.pop_front() else { break };
            let (own, links, watched_by) = (self.identity.process, &self.links, &self.watched_by);
            let is_free = |from: usize| match from.cmp(&own) {
                Ordering::Greater => links.get(from).is_some_and(Option::is_none),
                Ordering::Less => watched_by[from].is_none(),
                Ordering::Equal => false,
            };
            match arrival.advance(&self.identity, is_free) {
                Outcome::Continue => self.arrivals.push_back(arrival),
                Outcome::Joined(process) if process > own => self.link(process, arrival.socket)?,
                Outcome::Joined(process) => self.watched_by[process] = Some(arrival.socket),
                Outcome::Refused(error) => self.last_refusal = Some(error),
            }
        }
        Ok(())
    }

    fn link(&mut self, process: usize, socket: Socket) -> Result<(), MeshError> {
        let socket = Arc::new(socket);
        self.listener.lifeline().adopt(&socket)?;
        self.links[process] = Some(socket);
        Ok(())
    }
}

/// A connection during its handshake, or a watch that has passed it.
struct Conversation {
    socket: Socket,
    address: SocketAddr,
    handshake: Handshake,
    dialling: Dialling,
    inbox: [u8; LONGEST_MESSAGE],
    filled: usize,
    since: Instant,
    /// Whether it is a watch: no more data is expected on it.
    proved: bool,
}

enum Dialling {
    /// This end accepted the connection.
    No,
    /// This end dials, and sends the hello when the connection is established.
    Connecting { to: usize, hello: Vec<u8> },
    /// This end dialled, and has sent the hello.
    Connected { to: usize },
}

impl Conversation {
    fn new(socket: Socket, address: SocketAddr, handshake: Handshake, dialling: Dialling) -> Self {
        Self {
            socket,
            address,
            handshake,
            dialling,
            inbox: [0; LONGEST_MESSAGE],
            filled: 0,
            since: Instant::now(),
            proved: false,
        }
    }

    /// The process that this end dialled; `None` if it accepted the connection.
    fn to(&self) -> Option<usize> {
        match self.dialling {
            Dialling::No => None,
            Dialling::Connecting { to, .. } | Dialling::Connected { to } => Some(to),
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let is_connecting = matches!(self.dialling, Dialling::Connecting { .. });
        let interest = if is_connecting { PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(self.socket.as_fd(), interest)
    }

    /// Advances the handshake as far as possible without blocking.
    fn advance(&mut self, identity: &Identity, is_free: impl Fn(usize) -> bool + Copy) -> Outcome {
        match self.try_advance(identity, is_free) {
            Ok(outcome) => outcome,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Continue,
            Err(source) => Outcome::Refused(match self.dialling {
                Dialling::No => MeshError::Stranger { address: self.address },
                Dialling::Connecting { to, .. } => MeshError::Connect { process: to, address: self.address, source },
                Dialling::Connected { to } => MeshError::PeerGone { process: to },
            }),
        }
    }

    fn try_advance(&mut self, identity: &Identity, is_free: impl Fn(usize) -> bool + Copy) -> io::Result<Outcome> {
        if let Dialling::Connecting { to, hello } = &self.dialling {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            if self.socket.peer_addr().is_err() {
                return Ok(Outcome::Continue);
            }
            configure(&self.socket)?;
            send_whole(&self.socket, hello)?;
            self.dialling = Dialling::Connected { to: *to };
        }
        if self.proved {
            // Any data on a watch breaks the protocol.
            let read = (&self.socket).read(&mut [0])?;
            let kind = if read == 0 { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
            return Err(kind.into());
        }
        loop {
            let due = self.handshake.message_bytes();
            while self.filled < due {
                match (&self.socket).read(&mut self.inbox[self.filled..due]) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(read) => self.filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                if !self.handshake.can_begin_with(&self.inbox[..self.filled]) {
                    return Ok(Outcome::Refused(MeshError::Stranger { address: self.address }));
                }
            }
            self.filled = 0;
            let step = self.handshake.receive(identity, &self.inbox[..due], self.address, is_free);
            match step.outcome {
                // The outcome is the same if the other end does not get the verdict.
                Outcome::Refused(error) => {
                    let _ = send_whole(&self.socket, &step.send);
                    return Ok(Outcome::Refused(error));
                }
                Outcome::Joined(process) => {
                    configure(&self.socket)?;
                    send_whole(&self.socket, &step.send)?;
                    return Ok(Outcome::Joined(process));
                }
                Outcome::Continue => send_whole(&self.socket, &step.send)?,
            }
        }
    }
}

/// Begins to connect; the socket becomes writable when the connection is established.
fn dial(own: SocketAddr, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if own.is_ipv4() == to.is_ipv4() {
        // Use the interface at which the peers reach this process.
        socket.bind(&SocketAddr::new(own.ip(), 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Sets options that all connections of a mesh have: small frames are sent at once, and keepalive notices a dead machine.
fn configure(socket: &Socket) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_nodelay(true)
}

/// Sends a message of the handshake. The buffer of a new connection has room for all of them, so a short write is an error.
fn send_whole(socket: &Socket, message: &[u8]) -> io::Result<()> {
    if message.is_empty() {
        return Ok(());
    }
    let sent = loop {
        match socket.send_with_flags(message, libc::MSG_NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Must not be `WouldBlock`: the caller would wait for the other end, which waits for this message.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
            other => break other?,
        }
    };
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

pub(crate) fn nonce() -> Result<Nonce, MeshError> {
    let mut nonce = Nonce::default();
    match getrandom(&mut nonce, GetRandomFlags::empty()) {
        Ok(filled) if filled == nonce.len() => Ok(nonce),
        Ok(_) => Err(MeshError::Io { operation: "get random bytes", source: io::ErrorKind::UnexpectedEof.into() }),
        Err(errno) => Err(MeshError::Io { operation: "get random bytes", source: errno.into() }),
    }
}
