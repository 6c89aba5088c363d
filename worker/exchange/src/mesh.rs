//! The mesh that stands: one duplex round after another.
//!
//! A round moves all pairs' bytes at once on non-blocking sockets. When nothing moves, the thread first spins and yields
//! for a moment, because a peer that is about to answer answers within microseconds and waking up costs more than that;
//! then it sleeps in `poll`, so that it does not take the processor from those it waits for.

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

/// How long to spin before sleeping when every process of this machine can have a processor of its own.
const SPIN: Duration = Duration::from_micros(100);

/// The same when there are fewer processors than processes.
const SPIN_CROWDED: Duration = Duration::from_micros(5);

/// How far apart the numbers of two processes on one machine may be that have rings: each process reserves at most twice as many MiB.
const FARTHEST: usize = 63;

fn are_near(one: usize, other: usize) -> bool {
    one.abs_diff(other) <= FARTHEST
}

/// A process's place in the full mesh. Dropping it leaves the mesh.
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
    /// Connects to every other process, each end proving to the other that it knows the secret of this run and
    /// generation. One connection a pair.
    ///
    /// Strangers at the listener, and processes with a wrong secret or of another generation, are refused and do not
    /// disturb the set-up.
    ///
    /// # Errors
    /// `Connect`, `WrongSecret`, `OldGeneration`, `OtherRun`, `Misplaced`, `Stranger` at once, if that is what a dialled
    /// address answers; `PeerGone` at once, if a peer leaves during the set-up; `Absent` at the deadline; `Cut`.
    pub fn join(listener: Listener, config: &MeshConfig) -> Result<Self, MeshError> {
        let lifeline = Arc::clone(listener.lifeline());
        let own = listener.local_addr().ip();
        let sockets = connect_all(&listener, config).inspect_err(|_| lifeline.cut())?;
        // From here on nobody else is let in.
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

    /// Offers a ring to every peer on this machine that is near enough, and takes those that are offered.
    fn share_memory(&mut self, allowed: bool) -> Result<(), MeshError> {
        let host = Host::this().ok().filter(|_| allowed);
        // First who is here: memory is reserved for each ring, also for one that nobody could take.
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

    /// Gives each process `length` bytes of memory, zeros, that all processes see where it lies: by process, its own to
    /// write, the others' to read. Lengths may differ and are at least 1. `None` for all if for some it cannot be.
    ///
    /// What a process writes before it begins a round is seen by whoever has finished that round.
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

    /// A round of a few bytes for everybody.
    fn swap<const N: usize>(&mut self, outgoing: &[[u8; N]]) -> Result<Vec<[u8; N]>, MeshError> {
        let mut incoming = vec![[0; N]; self.processes];
        let outgoing: Vec<_> = outgoing.iter().map(<[u8; N]>::as_slice).collect();
        let mut places: Vec<_> = incoming.iter_mut().map(<[u8; N]>::as_mut_slice).collect();
        self.exchange(&outgoing, &mut places)?;
        Ok(incoming)
    }

    /// This process's number.
    pub fn process(&self) -> usize {
        self.process
    }

    /// How many processes the mesh has.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// How many of the other processes are reached through shared memory.
    pub fn sharing_memory(&self) -> usize {
        self.links.iter().filter(|link| link.has_lane()).count()
    }

    /// A word that goes to every other process with each round from now on. It costs no message of its own.
    pub fn note(&mut self, word: u64) {
        self.note = word;
    }

    /// The words that came with the last round, one from each other process.
    pub fn notes(&self) -> impl Iterator<Item = u64> {
        self.links.iter().map(Link::noted)
    }

    /// A handle that cuts this mesh from any thread.
    pub fn cut_handle(&self) -> CutHandle {
        CutHandle::new(Arc::clone(&self.lifeline))
    }

    /// One duplex round: sends `outgoing[p]` to every process `p` and fills `incoming[p]` from it, all at once. This
    /// process's own places are ignored. Lengths may differ and may be 0; both ends of a pair know them.
    ///
    /// Returns when everything is received, and everything sent is in the system's hands. It also means that every
    /// other process has begun this round. What a peer had sent in full before it left counts: then its leaving is an
    /// error of the next round.
    ///
    /// # Errors
    /// `PeerGone`, `Silence`, `LengthMismatch`, `OutOfStep`, `BadFrame`, `Io`: the mesh is then cut and the other
    /// processes get an error within milliseconds. `Cut` if it was cut before or meanwhile. `incoming` then holds
    /// anything.
    ///
    /// # Panics
    /// If a slice of slices does not have one entry for each process.
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
        // Whether it slept or not: who has asked to be woken asks no more, so that wake-ups never pile up.
        for link in self.links.iter_mut().filter(|link| !link.is_done()) {
            link.awake();
        }
        Ok(())
    }

    fn poll_links(&self, deadline: Instant, limit: Duration) -> Result<(), MeshError> {
        // A finished link is left out: its peer may have left after the round, which would wake us without end.
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
        // Judged by what `poll` saw, not by the clock alone: if it was this process that stood still for so long, the
        // peers' bytes are there.
        let now = Instant::now();
        let silent = pending().zip(&fds[1..]).find(|(link, fd)| fd.revents().is_empty() && link.is_silent(now, limit));
        match silent {
            Some((link, _)) => Err(MeshError::Silence { process: link.process(), after: limit }),
            None => Ok(()),
        }
    }

    /// Cuts the mesh because of `error`, and tells the others whom to blame. What is returned is what the caller learns.
    fn give_up(&self, error: MeshError) -> MeshError {
        // A socket that broke because of a cut says no more than that the mesh was cut.
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

/// How long to spin, given who shares this machine's processors.
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
