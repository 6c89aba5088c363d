//! The handshake, in which the two ends of a connection authenticate each other. Pure, no I/O.
//!
//! ```text
//!   dialler                                              acceptor
//!      hello: from, to, size, generation, run, nonce  ──>  (old generation, other run, wrong place: verdict, close)
//!                 <──  reply: verdict, generation, nonce, keyed(secret, "acceptor", hello, nonce)
//!      keyed(secret, "dialler", hello, nonce)  ──>
//!                                                     <──  verdict
//! ```
//!
//! Both proofs cover the whole hello (so run, generation and both indices) and both nonces. The role at the beginning makes
//! the proof of one end useless for the other end. A dialler that gets a wrong proof answers with a proof of zeros, so that
//! both ends report `WrongSecret`.

use std::net::SocketAddr;

use crate::MeshError;

const HELLO_MAGIC: [u8; 8] = *b"LSXHELO3";
const REPLY_MAGIC: [u8; 8] = *b"LSXREPL3";
const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = blake3::OUT_LEN;
/// Stands for no proof. A real proof has this value with a probability of 2^-256.
const NO_PROOF: [u8; PROOF_BYTES] = [0; PROOF_BYTES];
const HELLO_BYTES: usize = 8 + 3 * 4 + 8 + blake3::OUT_LEN + NONCE_BYTES;
const REPLY_BYTES: usize = 8 + 4 + 8 + NONCE_BYTES + PROOF_BYTES;
const VERDICT_BYTES: usize = 4;

/// Bytes of the longest message of the handshake.
pub(crate) const LONGEST_MESSAGE: usize = if HELLO_BYTES > REPLY_BYTES { HELLO_BYTES } else { REPLY_BYTES };

/// A random value that is used once.
pub(crate) type Nonce = [u8; NONCE_BYTES];

/// The values that a process presents and expects in a handshake.
pub(crate) struct Identity {
    pub(crate) process: usize,
    pub(crate) processes: usize,
    pub(crate) generation: u64,
    pub(crate) run: blake3::Hash,
    pub(crate) secret: [u8; 32],
}

/// One end's state of a handshake.
pub(crate) struct Handshake {
    stage: Stage,
}

enum Stage {
    /// Dialler, waits for the reply to its hello.
    Reply { to: usize, hello: [u8; HELLO_BYTES] },
    /// Dialler, waits for the acceptor's verdict; `proved`: the acceptor's own proof was right.
    Verdict { to: usize, proved: bool },
    /// Acceptor, waits for a hello.
    Hello { nonce: Nonce },
    /// Acceptor, waits for the proof of `from`.
    Proof { from: usize, hello: [u8; HELLO_BYTES], nonce: Nonce },
}

/// The answer to a message, and where the handshake stands after it.
pub(crate) struct Step {
    /// Bytes to send now; may be empty.
    pub(crate) send: Vec<u8>,
    pub(crate) outcome: Outcome,
}

/// Where a handshake stands.
pub(crate) enum Outcome {
    /// Another message is due.
    Continue,
    /// The handshake has succeeded; the other end is the process of this index.
    Joined(usize),
    /// The handshake has failed; the connection is closed after the answer is sent.
    Refused(MeshError),
}

/// The acceptor's verdict, with the numbers that are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Verdict {
    Accepted = 0,
    OldGeneration = 1,
    OtherRun = 2,
    Misplaced = 3,
    WrongSecret = 4,
}

impl Handshake {
    /// Begins as the dialler of process `to`; the bytes are the hello to send.
    pub(crate) fn dial(identity: &Identity, to: usize, nonce: &Nonce) -> (Self, Vec<u8>) {
        let hello = encode_hello(identity, to, nonce);
        (Self { stage: Stage::Reply { to, hello } }, hello.to_vec())
    }

    /// Begins as the acceptor of a connection from an unknown process.
    pub(crate) fn accept(nonce: Nonce) -> Self {
        Self { stage: Stage::Hello { nonce } }
    }

    /// Length of the message that the other end must send next.
    pub(crate) fn message_bytes(&self) -> usize {
        match self.stage {
            Stage::Reply { .. } => REPLY_BYTES,
            Stage::Verdict { .. } => VERDICT_BYTES,
            Stage::Hello { .. } => HELLO_BYTES,
            Stage::Proof { .. } => PROOF_BYTES,
        }
    }

    /// Whether the next message can begin with `prefix`: rejects other protocols by their first bytes.
    pub(crate) fn can_begin_with(&self, prefix: &[u8]) -> bool {
        let magic: &[u8] = match self.stage {
            Stage::Reply { .. } => &REPLY_MAGIC,
            Stage::Hello { .. } => &HELLO_MAGIC,
            Stage::Verdict { .. } | Stage::Proof { .. } => &[],
        };
        magic.iter().zip(prefix).all(|(expected, found)| expected == found)
    }

    /// Takes the next message, of [`Handshake::message_bytes`] bytes, from `address`. `is_free` is true for a process that is
    /// still expected to dial.
    pub(crate) fn receive(
        &mut self,
        identity: &Identity,
        message: &[u8],
        address: SocketAddr,
        is_free: impl Fn(usize) -> bool,
    ) -> Step {
        match &self.stage {
            Stage::Hello { nonce } => {
                let (stage, step) = receive_hello(identity, message, *nonce, address, is_free);
                self.stage = stage;
                step
            }
            Stage::Reply { to, hello } => {
                let (stage, step) = receive_reply(identity, message, *to, hello, address);
                self.stage = stage;
                step
            }
            Stage::Proof { from, hello, nonce } => {
                if proof(identity, DIALLER, hello, nonce) != *message {
                    return Step::refuse(Verdict::WrongSecret, MeshError::WrongSecret { process: *from, address });
                }
                // Two connections of one process may both have come this far: the first one is kept.
                if !is_free(*from) {
                    return Step::refuse(Verdict::Misplaced, MeshError::Misplaced { process: *from, address });
                }
                Step { send: Verdict::Accepted.encode().to_vec(), outcome: Outcome::Joined(*from) }
            }
            Stage::Verdict { to, proved } => {
                let outcome = match Verdict::decode(message) {
                    Some(Verdict::Accepted) if *proved => Outcome::Joined(*to),
                    Some(Verdict::Misplaced) if *proved => {
                        Outcome::Refused(MeshError::Misplaced { process: *to, address })
                    }
                    Some(_) => Outcome::Refused(MeshError::WrongSecret { process: *to, address }),
                    None => Outcome::Refused(MeshError::Stranger { address }),
                };
                Step { send: Vec::new(), outcome }
            }
        }
    }
}

impl Step {
    fn refuse(verdict: Verdict, error: MeshError) -> Self {
        Self { send: verdict.encode().to_vec(), outcome: Outcome::Refused(error) }
    }
}

impl Verdict {
    fn encode(self) -> [u8; VERDICT_BYTES] {
        (self as u32).to_le_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let known = [Self::Accepted, Self::OldGeneration, Self::OtherRun, Self::Misplaced, Self::WrongSecret];
        known.into_iter().find(|verdict| verdict.encode() == bytes)
    }
}

fn receive_hello(
    identity: &Identity,
    message: &[u8],
    nonce: Nonce,
    address: SocketAddr,
    is_free: impl Fn(usize) -> bool,
) -> (Stage, Step) {
    let mut fields = Fields(message);
    if fields.take::<8>() != Some(HELLO_MAGIC) {
        let outcome = Outcome::Refused(MeshError::Stranger { address });
        return (Stage::Hello { nonce }, Step { send: Vec::new(), outcome });
    }
    let from = fields.number();
    let to = fields.number();
    let processes = fields.number();
    let generation = u64::from_le_bytes(fields.take().unwrap_or_default());
    let run = fields.take().map(blake3::Hash::from_bytes);

    let refusal = if generation != identity.generation {
        let error = MeshError::OldGeneration { process: from, address, ours: identity.generation, theirs: generation };
        Some((Verdict::OldGeneration, error))
    } else if run != Some(identity.run) {
        Some((Verdict::OtherRun, MeshError::OtherRun { process: from, address }))
    } else if to != identity.process || processes != identity.processes || !is_free(from) {
        Some((Verdict::Misplaced, MeshError::Misplaced { process: from, address }))
    } else {
        None
    };
    if let Some((verdict, error)) = refusal {
        let send = encode_reply(verdict, identity.generation, &[0; NONCE_BYTES], &NO_PROOF);
        return (Stage::Hello { nonce }, Step { send, outcome: Outcome::Refused(error) });
    }
    let hello: [u8; HELLO_BYTES] = message.try_into().expect("the caller gathers `message_bytes` bytes");
    let proof = proof(identity, ACCEPTOR, &hello, &nonce);
    let send = encode_reply(Verdict::Accepted, identity.generation, &nonce, proof.as_bytes());
    (Stage::Proof { from, hello, nonce }, Step { send, outcome: Outcome::Continue })
}

fn receive_reply(
    identity: &Identity,
    message: &[u8],
    to: usize,
    hello: &[u8; HELLO_BYTES],
    address: SocketAddr,
) -> (Stage, Step) {
    let mut fields = Fields(message);
    let magic = fields.take::<8>();
    let verdict = fields.take::<VERDICT_BYTES>().and_then(|bytes| Verdict::decode(&bytes));
    let theirs = u64::from_le_bytes(fields.take().unwrap_or_default());
    let nonce: Nonce = fields.take().unwrap_or_default();
    let given: [u8; PROOF_BYTES] = fields.take().unwrap_or_default();

    let refused = |error| {
        let step = Step { send: Vec::new(), outcome: Outcome::Refused(error) };
        (Stage::Verdict { to, proved: false }, step)
    };
    match verdict.filter(|_| magic == Some(REPLY_MAGIC)) {
        Some(Verdict::Accepted) => {
            let proved = proof(identity, ACCEPTOR, hello, &nonce) == given;
            let own = if proved { *proof(identity, DIALLER, hello, &nonce).as_bytes() } else { NO_PROOF };
            let send = own.to_vec();
            (Stage::Verdict { to, proved }, Step { send, outcome: Outcome::Continue })
        }
        Some(Verdict::OldGeneration) => {
            refused(MeshError::OldGeneration { process: to, address, ours: identity.generation, theirs })
        }
        Some(Verdict::OtherRun) => refused(MeshError::OtherRun { process: to, address }),
        Some(Verdict::Misplaced) => refused(MeshError::Misplaced { process: to, address }),
        Some(Verdict::WrongSecret) | None => refused(MeshError::Stranger { address }),
    }
}

const DIALLER: &[u8; 16] = b"lockstep dialler";
const ACCEPTOR: &[u8; 16] = b"lockstep accept.";

/// Proof of knowing the secret. Comparisons take constant time, because it is a `blake3::Hash`.
fn proof(identity: &Identity, role: &[u8; 16], hello: &[u8; HELLO_BYTES], nonce: &Nonce) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&identity.secret);
    hasher.update(role).update(hello).update(nonce);
    hasher.finalize()
}

fn encode_hello(identity: &Identity, to: usize, nonce: &Nonce) -> [u8; HELLO_BYTES] {
    let mut bytes = Vec::with_capacity(HELLO_BYTES);
    bytes.extend(HELLO_MAGIC);
    for number in [identity.process, to, identity.processes] {
        bytes.extend((number as u32).to_le_bytes());
    }
    bytes.extend(identity.generation.to_le_bytes());
    bytes.extend(identity.run.as_bytes());
    bytes.extend(nonce);
    bytes.try_into().expect("the fields add up to `HELLO_BYTES`")
}

fn encode_reply(verdict: Verdict, generation: u64, nonce: &Nonce, proof: &[u8; PROOF_BYTES]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REPLY_BYTES);
    bytes.extend(REPLY_MAGIC);
    bytes.extend(verdict.encode());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(nonce);
    bytes.extend(proof);
    bytes
}

/// The unread rest of a message.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> usize {
        u32::from_le_bytes(self.take().unwrap_or_default()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(process: usize) -> Identity {
        Identity { process, processes: 3, generation: 7, run: blake3::hash(b"run"), secret: [9; 32] }
    }

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    /// Runs a handshake between `dialler`, which dials process 1, and `acceptor`; returns both outcomes. `tamper` may change
    /// every message.
    fn meet(
        dialler: &Identity,
        acceptor: &Identity,
        is_free: bool,
        mut tamper: impl FnMut(usize, &mut Vec<u8>),
    ) -> (Outcome, Outcome) {
        let (mut dial, mut message) = Handshake::dial(dialler, 1, &[1; NONCE_BYTES]);
        let mut accept = Handshake::accept([2; NONCE_BYTES]);
        let mut ends = (Outcome::Continue, Outcome::Continue);
        for turn in 0.. {
            if message.is_empty() {
                break;
            }
            tamper(turn, &mut message);
            let (end, own, outcome) =
                if turn % 2 == 0 { (&mut accept, acceptor, &mut ends.1) } else { (&mut dial, dialler, &mut ends.0) };
            assert_eq!(message.len(), end.message_bytes());
            let step = end.receive(own, &message, address(), |_| is_free);
            *outcome = step.outcome;
            message = step.send;
        }
        ends
    }

    #[test]
    fn two_ends_that_share_everything_join() {
        let ends = meet(&identity(2), &identity(1), true, |_, _| {});
        assert!(matches!(ends, (Outcome::Joined(1), Outcome::Joined(2))));
    }

    #[test]
    fn every_flipped_bit_of_every_message_is_refused() {
        let mut lengths = [0; 4];
        meet(&identity(2), &identity(1), true, |turn, message| lengths[turn] = message.len());
        assert_eq!(lengths, [HELLO_BYTES, REPLY_BYTES, PROOF_BYTES, VERDICT_BYTES]);
        // The generation in the reply is only used in an error message; all other bytes are authenticated.
        let explains = |turn: usize, byte: usize| turn == 1 && (12..20).contains(&byte);
        for (turn, length) in lengths.into_iter().enumerate() {
            for bit in (0..length * 8).filter(|bit| !explains(turn, bit / 8)) {
                let ends = meet(&identity(2), &identity(1), true, |at, message| {
                    if at == turn {
                        message[bit / 8] ^= 1 << (bit % 8);
                    }
                });
                assert!(!matches!(ends.0, Outcome::Joined(_)), "message {turn}, bit {bit}");
                assert!(turn == 3 || !matches!(ends.1, Outcome::Joined(_)), "message {turn}, bit {bit}");
            }
        }
    }

    #[test]
    fn each_difference_has_its_own_error_on_both_ends() {
        type Case = (fn(&mut Identity), bool, fn(&MeshError) -> bool);
        let cases: [Case; 5] = [
            (|own| own.secret[31] ^= 1, true, |error| matches!(error, MeshError::WrongSecret { .. })),
            (|own| own.generation = 6, true, |error| matches!(error, MeshError::OldGeneration { .. })),
            (|own| own.run = blake3::hash(b"other"), true, |error| matches!(error, MeshError::OtherRun { .. })),
            (|own| own.processes = 4, true, |error| matches!(error, MeshError::Misplaced { .. })),
            (|_| {}, false, |error| matches!(error, MeshError::Misplaced { .. })),
        ];
        for (index, (change, is_free, is_expected)) in cases.into_iter().enumerate() {
            let mut dialler = identity(2);
            change(&mut dialler);
            let (Outcome::Refused(at_dialler), Outcome::Refused(at_acceptor)) =
                meet(&dialler, &identity(1), is_free, |_, _| {})
            else {
                panic!("case {index} was not refused on both ends");
            };
            assert!(is_expected(&at_dialler), "case {index}: {at_dialler}");
            assert!(is_expected(&at_acceptor), "case {index}: {at_acceptor}");
        }
    }

    #[test]
    fn a_proof_cannot_be_reflected() {
        let hello = encode_hello(&identity(2), 1, &[1; NONCE_BYTES]);
        let nonce = [2; NONCE_BYTES];
        assert_ne!(proof(&identity(1), DIALLER, &hello, &nonce), proof(&identity(1), ACCEPTOR, &hello, &nonce));
    }
}
