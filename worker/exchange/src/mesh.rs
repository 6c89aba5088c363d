//! The complete mesh: one duplex round after another.
//!
//! A round moves the bytes of all pairs at once on non-blocking sockets. When no byte moves, the thread first spins and
//! yields: most answers come within microseconds, and waking up takes longer than that. Then it sleeps in `poll`, so that it
//! does not take a processor from the processes that it waits for.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use crate::{
    CutHandle, Listener, MeshConfig, MeshError,
    cut::Lifeline,
    join::{connect_all, nonce},
    lane::{self, Lane, OfferedRing},
    link::Link,
    offer::{Host, NOTHING},
    poll::poll_until,
    window::{self, OfferedWindow, Window},
};

/// How long to spin before sleeping if this machine has a processor for each of its processes.
const SPIN: Duration = Duration::from_micros(100);

/// How long to spin if this machine has fewer processors than processes.
const SPIN_CROWDED: Duration = Duration::from_micros(5);

/// Largest difference of the indices of two processes that share rings. So a process has at most 126 rings, of 1 MiB each.
const FARTHEST: usize = 63;

fn are_near(one: usize, other: usize) -> bool {
    one.abs_diff(other) <= FARTHEST
}

/// A process's end of the full mesh. Dropping it cuts the mesh.
#[derive(Debug)]
pub struct Mesh {
    process: usize,
    processes: usize,
    links: Vec<Link>,
    sequence: u32,
    note: u64,
    silence_limit: Duration,
    spin: Duration,
    lifeline: Arc<Lifeline>,
}

impl Mesh {
    /// Connects to every other process, with one connection for each pair. Both ends prove to each other that they know the
    /// secret, the run and the generation.
    ///
    /// Strangers at the listener, and processes with a wrong secret or of another generation, are rejected and do not
    /// disturb the set-up.
    ///
    /// # Errors
    /// `NoMember`. At once: `Connect`, `WrongSecret`, `OldGeneration`, `OtherRun`, `Misplaced`, `Stranger`, if a dialled
    /// address answers so, and `PeerGone`, if a peer leaves during the set-up. `Absent` at the deadline. `Cut`, `Io`.
    pub fn join(listener: Listener, config: &MeshConfig) -> Result<Self, MeshError> {
        let lifeline = Arc::clone(listener.lifeline());
        let own = listener.local_addr().ip();
        let sockets = connect_all(&listener, config).inspect_err(|_| lifeline.cut())?;
        // From here on no connection is accepted.
        drop(listener);
        let links: Vec<Link> =
            sockets.into_iter().enumerate().filter_map(|(process, socket)| Some(Link::new(process, socket?))).collect();
        let mut mesh = Self {
            process: config.process,
            processes: config.addresses.len(),
            links,
            sequence: 0,
            note: 0,
            silence_limit: config.connect_deadline,
            spin: spin_for(own, &config.addresses),
            lifeline,
        };
        mesh.share_memory(config.shared_memory)?;
        mesh.silence_limit = config.silence_limit;
        Ok(mesh)
    }

    /// Offers a ring to each peer on this machine whose index is near enough, and accepts the rings of those peers.
    fn share_memory(&mut self, allowed: bool) -> Result<(), MeshError> {
        let host = Host::this().ok().filter(|_| allowed);
        // Compare hosts first: a ring reserves its memory, even if the peer could not open it.
        let hosts = self.swap(&vec![host.as_ref().map_or([0; 32], Host::id); self.processes])?;
        let mut rings: Vec<Option<OfferedRing>> = (0..self.processes).map(|_| None).collect();
        for link in &self.links {
            let there = link.process();
            if host.is_some_and(|host| hosts[there] == host.id()) && are_near(self.process, there) {
                rings[there] = OfferedRing::new(nonce()?);
            }
        }
        let offers: Vec<_> = rings
            .iter()
            .map(|ring| ring.as_ref().zip(host.as_ref()).map_or(NOTHING, |(ring, host)| ring.offer(host)))
            .collect();
        let mut taken = Vec::new();
        for offer in self.swap(&offers)? {
            taken.push(host.as_ref().and_then(|host| lane::take(&offer, host)));
        }
        let answers: Vec<_> = taken.iter().map(|ring| [u8::from(ring.is_some())]).collect();
        let answers = self.swap(&answers)?;
        for link in &mut self.links {
            let process = link.process();
            if let (Some(own), Some(ring), [1]) = (rings[process].take(), taken[process].take(), answers[process]) {
                link.share(Lane { outgoing: own.ring, incoming: ring });
            }
        }
        self.sequence = 0;
        Ok(())
    }

    /// Creates `length` zero bytes of shared memory for each process. The result has the windows of all processes by index:
    /// this process can write its own, and read the others. Lengths may differ, and are at least 1. The result is `None` in
    /// all processes if one process cannot reach the memory of another.
    ///
    /// Bytes that a process writes before it begins a round are visible to all processes that have finished that round.
    ///
    /// # Errors
    /// Those of [`Mesh::exchange`].
    pub fn windows(&mut self, length: usize) -> Result<Option<Vec<Window>>, MeshError> {
        let host = Host::this().ok().filter(|_| self.sharing_memory() == self.links.len());
        let nonce = nonce().map_err(|error| self.give_up(error))?;
        let own = host.as_ref().and_then(|_| OfferedWindow::new(length, nonce));
        let offer = own.as_ref().zip(host.as_ref()).map_or(NOTHING, |(own, host)| own.offer(host));
        let mut windows = Vec::new();
        for (process, offer) in self.swap(&vec![offer; self.processes])?.into_iter().enumerate() {
            windows.push(match (&own, &host) {
                (Some(own), _) if process == self.process => Some(Arc::clone(&own.window)),
                (_, Some(host)) => window::take(&offer, host),
                _ => None,
            });
        }
        let windows: Option<Vec<_>> = windows.into_iter().collect();
        let mut answers = self.swap(&vec![[u8::from(windows.is_some())]; self.processes])?;
        answers.swap_remove(self.process);
        Ok(windows.filter(|_| answers.iter().all(|answer| *answer == [1])))
    }

    /// A round with `N` bytes to and from each process.
    fn swap<const N: usize>(&mut self, outgoing: &[[u8; N]]) -> Result<Vec<[u8; N]>, MeshError> {
        let mut incoming = vec![[0; N]; self.processes];
        let outgoing: Vec<_> = outgoing.iter().map(<[u8; N]>::as_slice).collect();
        let mut places: Vec<_> = incoming.iter_mut().map(<[u8; N]>::as_mut_slice).collect();
        self.exchange(&outgoing, &mut places)?;
        Ok(incoming)
    }

    /// This process's index.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How many processes the mesh has.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// Number of peers that are reached through shared memory.
    pub fn sharing_memory(&self) -> usize {
        self.links.iter().filter(|link| link.has_lane()).count()
    }

    /// Sets the word that every later round sends to all peers, in the header of its frames.
    pub fn note(&mut self, word: u64) {
        self.note = word;
    }

    /// The words of the last round, one from each peer.
    pub fn notes(&self) -> impl Iterator<Item = u64> {
        self.links.iter().map(Link::noted)
    }

    /// A handle that cuts this mesh from any thread.
    pub fn cut_handle(&self) -> CutHandle {
        CutHandle::new(Arc::clone(&self.lifeline))
    }

    /// One duplex round: sends `outgoing[p]` to each process `p`, and fills `incoming[p]` from it, all at once. The entries
    /// of this process itself are ignored. Lengths may differ and may be 0; both ends of a pair must expect the same.
    ///
    /// Returns when all bytes are received, and all outgoing bytes are handed to the system. Then every other process has
    /// begun this round. If a peer leaves after it has sent all its bytes, this round succeeds and the next one fails.
    ///
    /// # Errors
    /// `PeerGone`, `Silence`, `LengthMismatch`, `OutOfStep`, `BadFrame`, `Io`: the mesh is then cut, and the other
    /// processes get an error within milliseconds. `Cut` if it was cut before or meanwhile. After an error the content of
    /// `incoming` is undefined.
    ///
    /// # Panics
    /// If `outgoing` or `incoming` does not have one entry for each process.
    pub fn exchange(&mut self, outgoing: &[&[u8]], incoming: &mut [&mut [u8]]) -> Result<(), MeshError> {
        assert_eq!(outgoing.len(), self.processes, "one outgoing slice for each process");
        assert_eq!(incoming.len(), self.processes, "one incoming slice for each process");
        self.round(outgoing, incoming).map_err(|error| self.give_up(error))
    }

    fn round(&mut self, outgoing: &[&[u8]], incoming: &mut [&mut [u8]]) -> Result<(), MeshError> {
        for link in &mut self.links {
            let process = link.process();
            link.begin(self.sequence, self.note, outgoing[process].len(), incoming[process].len());
        }
        let mut idle_since = None;
        loop {
            if self.lifeline.is_cut() {
                return Err(MeshError::Cut);
            }
            let mut moved = false;
            let mut done = true;
            for link in &mut self.links {
                if !link.is_done() {
                    let process = link.process();
                    moved |= link.advance(outgoing[process], incoming[process])?;
                    done &= link.is_done();
                }
            }
            if done {
                self.sequence = self.sequence.wrapping_add(1);
                return Ok(());
            }
            if moved {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() < self.spin {
                thread::yield_now();
            } else {
                self.sleep()?;
                idle_since = None;
            }
        }
    }

    /// Sleeps until an unfinished link can move, the mesh is cut, or a peer has been silent for too long.
    fn sleep(&mut self) -> Result<(), MeshError> {
        let (now, limit) = (Instant::now(), self.silence_limit);
        let pending = self.links.iter_mut().filter(|link| !link.is_done());
        let Some(deadline) = pending.map(|link| link.silent_at(now, limit)).min() else { return Ok(()) };
        let mut may_sleep = true;
        for link in self.links.iter().filter(|link| !link.is_done()) {
            may_sleep &= link.may_sleep()?;
        }
        if may_sleep {
            self.poll_links(deadline, limit)?;
        }
        // Whether this thread slept or not: take back all requests for wake-ups, so that they do not pile up.
        for link in self.links.iter_mut().filter(|link| !link.is_done()) {
            link.awake();
        }
        Ok(())
    }

    fn poll_links(&self, deadline: Instant, limit: Duration) -> Result<(), MeshError> {
        // Without finished links: a peer that left after the round would wake `poll` again and again.
        let pending = || self.links.iter().filter(|link| !link.is_done());
        let mut fds = Vec::with_capacity(1 + self.links.len());
        fds.push(PollFd::from_borrowed_fd(self.lifeline.wake(), PollFlags::IN));
        fds.extend(pending().map(|link| {
            let mut interest = PollFlags::empty();
            interest.set(PollFlags::OUT, link.wants_to_send() && !link.has_lane());
            interest.set(PollFlags::IN, link.wants_to_receive() || link.has_lane());
            PollFd::from_borrowed_fd(link.as_fd(), interest)
        }));
        poll_until(&mut fds, deadline)?;
        // The clock alone does not decide: if this process itself was stopped for that long, `poll` has found the bytes of
        // its peers.
        let now = Instant::now();
        let silent = pending().zip(&fds[1..]).find(|(link, fd)| fd.revents().is_empty() && link.is_silent(now, limit));
        match silent {
            Some((link, _)) => Err(MeshError::Silence { process: link.process(), after: limit }),
            None => Ok(()),
        }
    }

    /// Cuts the mesh because of `error`, and tells the peers which process is at fault. Returns the error for the caller.
    fn give_up(&self, error: MeshError) -> MeshError {
        // After a cut, errors of sockets are its consequence.
        if self.lifeline.is_cut() {
            return MeshError::Cut;
        }
        let blamed = match &error {
            MeshError::PeerGone { process } => Some((*process, Duration::ZERO)),
            MeshError::Silence { process, after } => Some((*process, *after)),
            _ => None,
        };
        if let Some((blamed, silence)) = blamed {
            for link in self.links.iter().filter(|link| link.process() != blamed) {
                link.farewell(blamed, silence);
            }
        }
        self.lifeline.cut();
        error
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.lifeline.cut();
    }
}

/// How long to spin, by the number of processes that share this machine's processors.
fn spin_for(own: IpAddr, addresses: &[SocketAddr]) -> Duration {
    let here = addresses.iter().filter(|address| address.ip() == own || address.ip().is_loopback()).count();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if here <= processors { SPIN } else { SPIN_CROWDED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_rings_with_the_nearest_only_and_both_ends_agree() {
        let rings = |own: usize, of: usize| (0..of).filter(|&there| there != own && are_near(own, there)).count();
        assert_eq!((rings(0, 8), rings(63, 64), rings(500, 4096), rings(0, 4096)), (7, 63, 2 * FARTHEST, FARTHEST));
        assert!((0..200).all(|a| (0..200).all(|b| are_near(a, b) == are_near(b, a))));
    }
}
