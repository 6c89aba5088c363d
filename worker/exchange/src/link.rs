//! The connection to one peer in one round: sends and receives as many bytes as possible without blocking.
//!
//! With shared memory the bytes of a round go there, and the socket carries wake-ups and farewells. It is read only when no
//! byte moves.
//!
//! Hot: no allocation, no log.

use std::{
    io::{self, IoSlice, IoSliceMut, Read},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::Socket;

use crate::{
    MeshError,
    frame::{HEADER_BYTES, Header},
    lane::Lane,
};

/// The connection to one peer, and its progress in the current round.
#[derive(Debug)]
pub(crate) struct Link {
    process: usize,
    socket: Arc<Socket>,
    lane: Option<Lane>,
    /// With a lane: the header that is being read from the socket.
    said: [u8; HEADER_BYTES],
    /// Bytes of `said` that are read.
    heard: usize,
    /// With a lane: the process at fault and its silence, once the socket has ended or brought a farewell.
    verdict: Option<(u32, Duration)>,
    sequence: u32,
    header_out: [u8; HEADER_BYTES],
    header_in: [u8; HEADER_BYTES],
    /// Sent bytes of the frame, header included; likewise below.
    sent: usize,
    to_send: usize,
    received: usize,
    to_receive: usize,
    /// Time at which this link was first found idle after its last byte.
    quiet_since: Option<Instant>,
    /// The peer's note in its last round.
    noted: u64,
}

impl Link {
    pub(crate) fn new(process: usize, socket: Arc<Socket>) -> Self {
        Self {
            process,
            socket,
            lane: None,
            said: [0; HEADER_BYTES],
            heard: 0,
            verdict: None,
            sequence: 0,
            header_out: [0; HEADER_BYTES],
            header_in: [0; HEADER_BYTES],
            sent: 0,
            to_send: 0,
            received: 0,
            to_receive: 0,
            quiet_since: None,
            noted: 0,
        }
    }

    pub(crate) fn process(&self) -> usize {
        self.process
    }

    /// Sends the bytes of later rounds through `lane`. Only allowed between two rounds.
    pub(crate) fn share(&mut self, lane: Lane) {
        self.lane = Some(lane);
    }

    pub(crate) fn has_lane(&self) -> bool {
        self.lane.is_some()
    }

    /// The peer's note in its last round.
    pub(crate) fn noted(&self) -> u64 {
        self.noted
    }

    /// Begins a round with `outgoing` payload bytes and `note` to send, and `incoming` payload bytes to receive.
    pub(crate) fn begin(&mut self, sequence: u32, note: u64, outgoing: usize, incoming: usize) {
        self.sequence = sequence;
        self.header_out = Header::Round { sequence, length: outgoing as u64, note }.encode();
        self.sent = 0;
        self.to_send = HEADER_BYTES + outgoing;
        self.received = 0;
        self.to_receive = HEADER_BYTES + incoming;
        self.quiet_since = None;
    }

    pub(crate) fn is_done(&self) -> bool {
        !self.wants_to_send() && !self.wants_to_receive()
    }

    pub(crate) fn wants_to_send(&self) -> bool {
        self.sent < self.to_send
    }

    pub(crate) fn wants_to_receive(&self) -> bool {
        self.received < self.to_receive
    }

    /// Sends and receives as much as possible; true if any byte moved.
    pub(crate) fn advance(&mut self, outgoing: &[u8], incoming: &mut [u8]) -> Result<bool, MeshError> {
        self.try_advance(outgoing, incoming).map_err(|error| self.last_words().unwrap_or(error))
    }

    fn try_advance(&mut self, outgoing: &[u8], incoming: &mut [u8]) -> Result<bool, MeshError> {
        let mut moved = false;
        if self.wants_to_send() {
            moved |= self.send(outgoing)?;
        }
        if self.wants_to_receive() {
            moved |= self.receive(incoming)?;
        }
        match self.verdict {
            _ if moved => self.quiet_since = None,
            // The peer has ended, and the ring has no more bytes from it.
            Some((process, silence)) if !self.is_done() => return Err(blame(process, silence)),
            _ => {}
        }
        Ok(moved)
    }

    /// Before a sleep: asks the peer for a wake-up when it moves bytes in the shared memory. False if bytes can be moved
    /// already.
    pub(crate) fn may_sleep(&self) -> Result<bool, MeshError> {
        let Some(lane) = &self.lane else { return Ok(true) };
        let corrupt = |_| MeshError::BadFrame { process: self.process };
        let to_receive = !self.wants_to_receive() || lane.incoming.arm().map_err(corrupt)?;
        let to_send = !self.wants_to_send() || lane.outgoing.arm().map_err(corrupt)?;
        Ok(to_receive && to_send && self.verdict.is_none())
    }

    /// After a sleep: takes back the request for a wake-up, and reads the socket beside the shared memory.
    pub(crate) fn awake(&mut self) {
        let Some(lane) = &self.lane else { return };
        lane.incoming.disarm();
        lane.outgoing.disarm();
        while self.verdict.is_none() {
            match (&*self.socket).read(&mut self.said[self.heard..]) {
                Ok(0) => self.verdict = Some((self.process as u32, Duration::ZERO)),
                Ok(count) => self.heard += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.verdict = Some((self.process as u32, Duration::ZERO)),
            }
            if self.heard == HEADER_BYTES {
                self.heard = 0;
                match Header::decode(&self.said) {
                    Some(Header::Wake) => {}
                    Some(Header::Farewell { process, silence }) => self.verdict = Some((process, silence)),
                    // Breaks the protocol: treated as gone.
                    Some(Header::Round { .. }) | None => self.verdict = Some((self.process as u32, Duration::ZERO)),
                }
            }
        }
    }

    /// Time at which this link will have been silent for `limit`. Silence counts from the first call after its last byte.
    pub(crate) fn silent_at(&mut self, now: Instant, limit: Duration) -> Instant {
        *self.quiet_since.get_or_insert(now) + limit
    }

    /// Whether this link has been silent for `limit`.
    pub(crate) fn is_silent(&self, now: Instant, limit: Duration) -> bool {
        self.quiet_since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }

    /// Tells the peer which process is at fault, if the connection is between two frames and takes a header. Otherwise the
    /// peer sees this connection break, and reports this process.
    pub(crate) fn farewell(&self, process: usize, silence: Duration) {
        if self.lane.is_some() || self.sent == 0 || self.sent == self.to_send {
            let header = Header::Farewell { process: process as u32, silence }.encode();
            let _ = self.socket.send_with_flags(&header, libc::MSG_NOSIGNAL);
        }
    }

    /// Reads the farewell of a peer whose connection broke, if it sent one: it names the process at fault.
    fn last_words(&mut self) -> Option<MeshError> {
        if self.lane.is_some() {
            self.awake();
            return self.verdict.map(|(process, silence)| blame(process, silence));
        }
        if self.received != 0 && self.wants_to_receive() {
            return None;
        }
        let mut header = [0; HEADER_BYTES];
        let read = (&*self.socket).read(&mut header).ok()?;
        match Header::decode(&header).filter(|_| read == HEADER_BYTES)? {
            Header::Farewell { process, silence } => Some(blame(process, silence)),
            Header::Round { .. } | Header::Wake => None,
        }
    }

    fn send(&mut self, outgoing: &[u8]) -> Result<bool, MeshError> {
        let header = &self.header_out[self.sent.min(HEADER_BYTES)..];
        let payload = &outgoing[self.sent.saturating_sub(HEADER_BYTES)..];
        let parts = [IoSlice::new(header), IoSlice::new(payload)];
        let count = if let Some(lane) = &mut self.lane {
            let written = lane.outgoing.write(&parts);
            let (count, asleep) = written.map_err(|_| MeshError::BadFrame { process: self.process })?;
            self.wake_if(asleep)?;
            count
        } else {
            self.count(self.socket.send_vectored_with_flags(&parts, libc::MSG_NOSIGNAL))?
        };
        self.sent += count;
        Ok(count > 0)
    }

    fn receive(&mut self, incoming: &mut [u8]) -> Result<bool, MeshError> {
        let had_header = self.received >= HEADER_BYTES;
        let header = &mut self.header_in[self.received.min(HEADER_BYTES)..];
        let payload = &mut incoming[self.received.saturating_sub(HEADER_BYTES)..];
        let mut parts = [IoSliceMut::new(header), IoSliceMut::new(payload)];
        let count = if let Some(lane) = &mut self.lane {
            let read = lane.incoming.read(&mut parts);
            let (count, asleep) = read.map_err(|_| MeshError::BadFrame { process: self.process })?;
            self.wake_if(asleep)?;
            count
        } else {
            let result = (&*self.socket).read_vectored(&mut parts);
            if matches!(result, Ok(0)) {
                return Err(MeshError::PeerGone { process: self.process });
            }
            self.count(result)?
        };
        self.received += count;
        if !had_header && self.received >= HEADER_BYTES {
            self.check_header()?;
        }
        Ok(count > 0)
    }

    fn wake_if(&self, asleep: bool) -> Result<(), MeshError> {
        if asleep {
            // Peers have few unread wake-ups, so the buffer always has room for one more.
            self.count(self.socket.send_with_flags(&Header::Wake.encode(), libc::MSG_NOSIGNAL))?;
        }
        Ok(())
    }

    fn check_header(&mut self) -> Result<(), MeshError> {
        let process = self.process;
        let expected = (self.to_receive - HEADER_BYTES) as u64;
        match Header::decode(&self.header_in) {
            Some(Header::Round { sequence, .. }) if sequence != self.sequence => {
                Err(MeshError::OutOfStep { process, expected: self.sequence, received: sequence })
            }
            Some(Header::Round { length, .. }) if length != expected => {
                Err(MeshError::LengthMismatch { process, expected, received: length })
            }
            Some(Header::Round { note, .. }) => {
                self.noted = note;
                Ok(())
            }
            Some(Header::Farewell { process, silence }) => Err(blame(process, silence)),
            Some(Header::Wake) | None => Err(MeshError::BadFrame { process }),
        }
    }

    /// Bytes that a system call moved; 0 if it would have blocked.
    fn count(&self, result: io::Result<usize>) -> Result<usize, MeshError> {
        result.or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            io::ErrorKind::OutOfMemory => {
                Err(MeshError::Io { operation: "send to a peer or receive from it", source: error })
            }
            // Reset, broken pipe, timed out, unreachable: the peer is gone.
            _ => Err(MeshError::PeerGone { process: self.process }),
        })
    }
}

fn blame(process: u32, silence: Duration) -> MeshError {
    let process = process as usize;
    if silence.is_zero() { MeshError::PeerGone { process } } else { MeshError::Silence { process, after: silence } }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use super::*;
    use crate::ring::{RingReader, RingWriter};

    const PEER: usize = 4;

    /// A link in round 5 that sends 3 bytes and expects 8, and the other end of its connection.
    fn link() -> (Link, UnixStream) {
        let (own, other) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let mut link = Link::new(PEER, Arc::new(Socket::from(OwnedFd::from(own))));
        link.begin(5, 7, 3, 8);
        (link, other)
    }

    fn round(sequence: u32, length: u64, payload: &[u8]) -> Vec<u8> {
        [&Header::Round { sequence, length, note: 7 }.encode()[..], payload].concat()
    }

    /// The link's error after the other end has sent `bytes`.
    fn answer_to(bytes: &[u8]) -> MeshError {
        let (mut link, mut other) = link();
        other.write_all(bytes).unwrap();
        link.advance(b"abc", &mut [0; 8]).unwrap_err()
    }

    #[test]
    fn a_round_arrives_in_pieces_and_leaves_as_one_frame() {
        let (mut link, mut other) = link();
        let mut incoming = [0; 8];
        for piece in round(5, 8, b"ABCDEFGH").chunks(5) {
            assert!(!link.is_done());
            other.write_all(piece).unwrap();
            assert!(link.advance(b"abc", &mut incoming).unwrap());
        }
        assert!(link.is_done());
        assert_eq!((&incoming, link.noted()), (b"ABCDEFGH", 7));
        assert!(!link.advance(b"abc", &mut incoming).unwrap());
        let mut sent = [0; 64];
        let length = other.read(&mut sent).unwrap();
        assert_eq!(sent[..length], round(5, 3, b"abc"));
    }

    #[test]
    fn silence_counts_from_the_last_byte() {
        let (mut link, mut other) = link();
        let (start, limit) = (Instant::now(), Duration::from_secs(1));
        assert!(!link.is_silent(start + limit, limit), "nobody has waited yet");
        assert_eq!(link.silent_at(start, limit), start + limit);
        assert_eq!(link.silent_at(start + limit / 2, limit), start + limit);
        assert!(!link.is_silent(start + limit / 2, limit));
        assert!(link.is_silent(start + limit, limit));
        other.write_all(&round(5, 8, b"A")).unwrap();
        assert!(link.advance(b"abc", &mut [0; 8]).unwrap());
        assert!(!link.is_silent(start + limit, limit));
    }

    #[test]
    fn another_round_another_length_and_garbage_are_told_apart() {
        assert!(matches!(
            answer_to(&round(6, 8, b"ABCDEFGH")),
            MeshError::OutOfStep { process: PEER, expected: 5, received: 6 }
        ));
        for length in [0, 7, 9, u64::MAX] {
            assert!(matches!(
                answer_to(&round(5, length, b"ABCDEFG")),
                MeshError::LengthMismatch { process: PEER, expected: 8, received } if received == length
            ));
        }
        assert!(matches!(answer_to(b"GET /status HTTP/1.1\r\n\r\n"), MeshError::BadFrame { process: PEER }));
    }

    #[test]
    fn a_farewell_names_the_process_at_fault_even_after_the_connection_broke() {
        let gone = Header::Farewell { process: 2, silence: Duration::ZERO }.encode();
        assert!(matches!(answer_to(&gone), MeshError::PeerGone { process: 2 }));
        let silent = Header::Farewell { process: 3, silence: Duration::from_millis(20) }.encode();
        assert!(matches!(answer_to(&silent), MeshError::Silence { process: 3, after } if after.as_millis() == 20));

        let (mut link, mut other) = link();
        other.write_all(&gone).unwrap();
        drop(other);
        // Sending fails first; the reason is found in what was received.
        assert!(matches!(link.advance(b"abc", &mut [0; 8]), Err(MeshError::PeerGone { process: 2 })));

        let (mut link, other) = self::link();
        drop(other);
        assert!(matches!(link.advance(b"abc", &mut [0; 8]), Err(MeshError::PeerGone { process: PEER })));
    }

    #[test]
    fn beside_shared_memory_a_sleeper_is_woken_and_one_that_looked_again_is_not() {
        let (mut link, mut other) = link();
        let (outgoing, _kept) = RingWriter::create(&[1; 32]).unwrap();
        let (mut peer, file) = RingWriter::create(&[2; 32]).unwrap();
        link.share(Lane { outgoing, incoming: RingReader::open(&file, &[2; 32]).unwrap() });

        let mut incoming = [0; 8];
        assert!(!link.may_sleep().unwrap(), "there is room to send");
        assert!(link.advance(b"abc", &mut incoming).unwrap());
        assert!(link.may_sleep().unwrap());
        assert_eq!(peer.write(&[IoSlice::new(&round(5, 8, b"ABCD"))]).unwrap(), (HEADER_BYTES + 4, true));
        assert!(!link.may_sleep().unwrap(), "there is something to read");
        link.awake();
        assert_eq!(peer.write(&[IoSlice::new(b"EF")]).unwrap(), (2, false), "nobody sleeps any more");

        assert!(link.advance(b"abc", &mut incoming).unwrap());
        other
            .write_all(
                &[Header::Wake.encode(), Header::Farewell { process: 2, silence: Duration::ZERO }.encode()].concat(),
            )
            .unwrap();
        link.awake();
        peer.write(&[IoSlice::new(b"GH")]).unwrap();
        assert!(link.advance(b"abc", &mut incoming).unwrap(), "what came before the farewell counts");
        assert!(link.is_done() && &incoming == b"ABCDEFGH");
        link.begin(6, 0, 3, 8);
        assert!(link.advance(b"abc", &mut incoming).unwrap(), "there is room to send");
        assert!(matches!(link.advance(b"abc", &mut incoming), Err(MeshError::PeerGone { process: 2 })));
    }
}
