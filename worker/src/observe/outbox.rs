//! The queue of messages from a process to its agent. Pushing never waits (invariant I7), and the record is never dropped: if the agent is
//! slow, the blocks of reports become larger, not more.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockstep_rpc::process_message::Body;
use lockstep_rpc::{EncodedBlock, KINDS, ReportBlock};
use prost::Message as _;

/// From this many waiting messages on, a new block is appended to the last waiting block.
const SOFT_LIMIT: usize = 16;

/// Upper limit for the steps of a block to which others are appended.
const BLOCK_STEPS: usize = 20_000;

/// A block is not appended if both together would have more bytes than this: far below the coordinator's limit (`MAX_BLOCK_BYTES`).
const BLOCK_BYTES: usize = 4 << 20;

/// How long [`Outbox::pop`] sleeps before it looks again.
const IDLE: Duration = Duration::from_hours(1);

/// The queue is closed and empty: no message will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A message of a process to its agent.
#[expect(clippy::large_enum_variant, reason = "nearly all messages are blocks, and few wait")]
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Reports. Not encoded yet, because encoding would cost the training thread time, and a waiting block may grow.
    Block(ReportBlock),
    /// Any other message.
    Other(Body),
}

impl From<ReportBlock> for Message {
    fn from(block: ReportBlock) -> Self {
        Self::Block(block)
    }
}

impl From<Body> for Message {
    fn from(body: Body) -> Self {
        Self::Other(body)
    }
}

impl Message {
    /// The message in the form that is sent to the agent. Only here a block is encoded.
    pub(crate) fn into_body(self) -> Body {
        match self {
            Self::Block(block) => Body::Block(EncodedBlock::of(block)),
            Self::Other(body) => body,
        }
    }
}

/// The queue of messages to the agent. Clones share the same queue.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Message>,
    /// Size of the last waiting message, if it is a block.
    last: Size,
    closed: bool,
}

/// The size of a block; counted once, without holding the lock.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// Upper limit for its encoded bytes.
    bytes: usize,
    /// Number of telemetry values, by kind.
    values: [u64; KINDS],
}

impl Size {
    fn of(message: &Message) -> Self {
        let Message::Block(block) = message else { return Self::default() };
        Self { bytes: block.encoded_len(), values: block.telemetry_values() }
    }

    fn add(&mut self, more: &Self) {
        self.bytes += more.bytes;
        self.values.iter_mut().zip(more.values).for_each(|(values, more)| *values += more);
    }
}

impl Outbox {
    /// Appends a message. Never waits.
    pub fn push(&self, message: impl Into<Message>) {
        let message = message.into();
        let size = Size::of(&message);
        let mut queue = self.lock();
        let joins = queue.waiting.len() >= SOFT_LIMIT && queue.last.bytes + size.bytes <= BLOCK_BYTES;
        let Queue { waiting, last, .. } = &mut *queue;
        match (waiting.back_mut(), message) {
            (Some(Message::Block(block)), Message::Block(more)) if joins && block.steps.len() < BLOCK_STEPS => {
                block.append(more);
                last.add(&size);
                // Trimmed only at twice the limit, so that the average cost of a push stays small.
                if block.is_twice_too_much(&last.values) {
                    block.trim();
                    last.values = block.telemetry_values();
                }
            }
            (_, message) => {
                waiting.push_back(message);
                *last = size;
            }
        }
        self.0.changed.notify_all();
    }

    /// Closes the queue: readers get the waiting messages, and then the end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Waits for the next message; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<Message> {
        loop {
            match self.pop_until(Instant::now() + IDLE) {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(Closed) => return None,
            }
        }
    }

    /// Waits for the next message until `deadline`; `None` if none has come.
    ///
    /// # Errors
    /// `Closed` once the queue is closed and empty.
    pub fn pop_until(&self, deadline: Instant) -> Result<Option<Message>, Closed> {
        let mut queue = self.lock();
        loop {
            if let Some(mut message) = queue.waiting.pop_front() {
                drop(queue);
                if let Message::Block(block) = &mut message {
                    block.trim();
                }
                return Ok(Some(message));
            }
            if queue.closed {
                return Err(Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            queue = self.0.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::{FingerprintReport, Finished, Series, StepReport, SystemReport};

    use super::*;

    /// The limits of the table of kinds in `lockstep_rpc`.
    const BLOCK_SYSTEMS: usize = 60;
    const BLOCK_POINTS: usize = 100_000;

    fn block(step: u64) -> ReportBlock {
        ReportBlock {
            steps: vec![StepReport { step, ..StepReport::default() }],
            systems: vec![SystemReport { step, ..SystemReport::default() }],
            fingerprints: vec![FingerprintReport { step, ..FingerprintReport::default() }],
            ..ReportBlock::default()
        }
    }

    #[test]
    fn a_reader_that_sleeps_makes_blocks_larger_and_loses_no_step_and_no_order() {
        let outbox = Outbox::default();
        let steps = 3 * BLOCK_STEPS as u64;
        for step in 0..steps {
            outbox.push(block(step));
            if step == 100 {
                outbox.push(Body::Finished(Finished::default()));
            }
        }
        outbox.close();
        let (mut seen, mut messages, mut finished_at) = (0, 0, None);
        while let Some(message) = outbox.pop() {
            messages += 1;
            match message {
                Message::Block(block) => {
                    assert!(block.systems.len() <= BLOCK_SYSTEMS && block.steps.len() <= BLOCK_STEPS);
                    let fingerprints: Vec<u64> = block.fingerprints.iter().map(|report| report.step).collect();
                    assert_eq!(fingerprints, block.steps.iter().map(|report| report.step).collect::<Vec<_>>());
                    for report in block.steps {
                        assert_eq!(report.step, seen);
                        seen += 1;
                    }
                }
                Message::Other(_) => finished_at = Some(seen),
            }
        }
        assert_eq!((seen, finished_at), (steps, Some(101)));
        assert!(messages < SOFT_LIMIT + 6, "{messages}");
    }

    #[test]
    fn a_block_stays_far_below_what_is_taken_whatever_is_reported_of_a_step() {
        let outbox = Outbox::default();
        let names = vec!["n".repeat(90); 100];
        for step in 0..3_000 {
            let report = FingerprintReport { step, names: names.clone(), ..FingerprintReport::default() };
            outbox.push(ReportBlock { fingerprints: vec![report], ..ReportBlock::default() });
        }
        outbox.close();
        let (mut seen, mut largest) = (0, 0);
        while let Some(Message::Block(block)) = outbox.pop() {
            assert!(
                block.fingerprints.iter().map(|report| report.step).eq(seen..seen + block.fingerprints.len() as u64)
            );
            seen += block.fingerprints.len() as u64;
            largest = largest.max(block.encoded_len());
        }
        assert!(seen == 3_000 && largest > BLOCK_BYTES / 2 && largest <= BLOCK_BYTES, "{seen} steps, {largest} bytes");
    }

    #[test]
    fn what_waits_is_trimmed_seldom_and_counted_at_no_push() {
        let outbox = Outbox::default();
        (0..SOFT_LIMIT as u64).for_each(|step| outbox.push(block(step)));
        let of = BLOCK_POINTS / 100;
        let more = || {
            let series = Series { values: vec![0.0; of], steps: vec![0; of], ..Series::default() };
            ReportBlock { series: vec![series], ..ReportBlock::default() }
        };
        let last = || {
            let queue = outbox.lock();
            let Some(Message::Block(block)) = queue.waiting.back() else { panic!("no block") };
            (queue.waiting.len(), block.dropped, queue.last.values.iter().max().copied().unwrap() as usize)
        };
        (0..200).for_each(|_| outbox.push(more()));
        assert_eq!(last(), (SOFT_LIMIT, 0, 200 * of), "twice what it keeps");
        outbox.push(more());
        assert_eq!(last(), (SOFT_LIMIT, 101 * of as u64, 100 * of));
        // With a wrong count, the block is taken for small, which shows that the contents are not counted again.
        outbox.lock().last.values = [0; KINDS];
        outbox.push(more());
        assert_eq!(last(), (SOFT_LIMIT, 101 * of as u64, of), "what is there is not looked at");
    }

    #[test]
    fn pop_waits_for_a_message_or_the_end() {
        let outbox = Outbox::default();
        let reader = std::thread::spawn({
            let outbox = outbox.clone();
            move || std::iter::from_fn(|| outbox.pop()).count()
        });
        outbox.push(block(1));
        outbox.close();
        assert_eq!(reader.join().unwrap(), 1);
    }
}
