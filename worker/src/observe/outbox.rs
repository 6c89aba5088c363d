//! What a process wants to say, on its way to the agent. Pushing never waits (I7), and no record is dropped: if the
//! agent is slow, blocks of reports grow larger instead of more.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockstep_rpc::ReportBlock;
use lockstep_rpc::process_message::Body;
use prost::Message as _;

/// From this many waiting messages on, a block of reports joins the block that waits before it.
const SOFT_LIMIT: usize = 16;

/// A block takes no more steps than this.
const BLOCK_STEPS: usize = 20_000;

/// None joins a block so that both take more bytes than this: far from what a coordinator takes (`MAX_BLOCK_BYTES`), whatever is
/// reported of a step.
const BLOCK_BYTES: usize = 4 << 20;

/// Telemetry of this many moments is kept in a block that waits; the oldest goes first.
const BLOCK_SYSTEMS: usize = 60;

/// As of distributions, which are some hundred bytes each, and of values of the run's own.
const BLOCK_HISTOGRAMS: usize = 4096;
const BLOCK_POINTS: usize = 100_000;

/// How long a reader sleeps that waits for as long as it takes.
const IDLE: Duration = Duration::from_hours(1);

/// No message will come any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The queue. Clones are the same queue.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Body>,
    /// Of the last one, if it is a block.
    last: Size,
    closed: bool,
}

/// How much a block holds: counted once, and not under the lock.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// At most, encoded.
    bytes: usize,
    /// Values of series.
    points: usize,
}

impl Size {
    fn of(body: &Body) -> Self {
        let Body::Block(block) = body else { return Self::default() };
        Self { bytes: block.encoded_len(), points: block.series.iter().map(|series| series.values.len()).sum() }
    }
}

impl Outbox {
    /// Puts a message behind all others.
    pub fn push(&self, body: Body) {
        let size = Size::of(&body);
        let mut queue = self.lock();
        let joins = queue.waiting.len() >= SOFT_LIMIT && queue.last.bytes + size.bytes <= BLOCK_BYTES;
        let Queue { waiting, last, .. } = &mut *queue;
        match (waiting.back_mut(), body) {
            (Some(Body::Block(block)), Body::Block(more)) if joins && block.steps.len() < BLOCK_STEPS => {
                join(block, more);
                last.bytes += size.bytes;
                last.points += size.points;
                // Only when there is twice too much: what it costs is little for each push.
                if is_twice_too_much(block, last.points) {
                    last.points = trim(block);
                }
            }
            (_, body) => {
                waiting.push_back(body);
                *last = size;
            }
        }
        self.0.changed.notify_all();
    }

    /// No message will follow.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// The next message, waited for; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<Body> {
        loop {
            match self.pop_until(Instant::now() + IDLE) {
                Ok(Some(body)) => return Some(body),
                Ok(None) => {}
                Err(Closed) => return None,
            }
        }
    }

    /// The next message, if there is one before `deadline`.
    ///
    /// # Errors
    /// `Closed` once the queue is closed and empty.
    pub fn pop_until(&self, deadline: Instant) -> Result<Option<Body>, Closed> {
        let mut queue = self.lock();
        loop {
            if let Some(mut body) = queue.waiting.pop_front() {
                drop(queue);
                if let Body::Block(block) = &mut body {
                    trim(block);
                }
                return Ok(Some(body));
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

/// Appends `block` to `last`.
fn join(last: &mut ReportBlock, block: ReportBlock) {
    if last.steps.is_empty() {
        last.record_before = block.record_before;
    }
    last.steps.extend(block.steps);
    last.layers.extend(block.layers);
    last.evals.extend(block.evals);
    last.fingerprints.extend(block.fingerprints);
    last.systems.extend(block.systems);
    last.series.extend(block.series);
    last.histograms.extend(block.histograms);
    last.media.extend(block.media);
    last.model = block.model.or(last.model.take());
    last.dropped += block.dropped;
}

fn is_twice_too_much(block: &ReportBlock, points: usize) -> bool {
    points > 2 * BLOCK_POINTS
        || block.systems.len() > 2 * BLOCK_SYSTEMS
        || block.histograms.len() > 2 * BLOCK_HISTOGRAMS
}

/// Lets go of the oldest telemetry beyond what a block may hold, and counts it; the values of series that stay.
fn trim(block: &mut ReportBlock) -> usize {
    block.dropped +=
        drop_oldest(&mut block.systems, BLOCK_SYSTEMS) + drop_oldest(&mut block.histograms, BLOCK_HISTOGRAMS);
    let mut points: usize = block.series.iter().map(|series| series.values.len()).sum();
    let mut gone = 0;
    while points > BLOCK_POINTS {
        points -= block.series[gone].values.len();
        block.dropped += block.series[gone].values.len() as u64;
        gone += 1;
    }
    block.series.drain(..gone);
    points
}

/// Lets go of the oldest beyond `most`; how many.
fn drop_oldest<T>(telemetry: &mut Vec<T>, most: usize) -> u64 {
    let excess = telemetry.len().saturating_sub(most);
    telemetry.drain(..excess);
    excess as u64
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::{FingerprintReport, Finished, Series, StepReport, SystemReport};

    use super::*;

    fn block(step: u64) -> Body {
        Body::Block(ReportBlock {
            steps: vec![StepReport { step, ..StepReport::default() }],
            systems: vec![SystemReport { step, ..SystemReport::default() }],
            fingerprints: vec![FingerprintReport { step, ..FingerprintReport::default() }],
            ..ReportBlock::default()
        })
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
        while let Some(body) = outbox.pop() {
            messages += 1;
            match body {
                Body::Block(block) => {
                    assert!(block.systems.len() <= BLOCK_SYSTEMS && block.steps.len() <= BLOCK_STEPS);
                    let fingerprints: Vec<u64> = block.fingerprints.iter().map(|report| report.step).collect();
                    assert_eq!(fingerprints, block.steps.iter().map(|report| report.step).collect::<Vec<_>>());
                    for report in block.steps {
                        assert_eq!(report.step, seen);
                        seen += 1;
                    }
                }
                _ => finished_at = Some(seen),
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
            outbox.push(Body::Block(ReportBlock { fingerprints: vec![report], ..ReportBlock::default() }));
        }
        outbox.close();
        let (mut seen, mut largest) = (0, 0);
        while let Some(Body::Block(block)) = outbox.pop() {
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
            Body::Block(ReportBlock { series: vec![series], ..ReportBlock::default() })
        };
        let last = || {
            let queue = outbox.lock();
            let Some(Body::Block(block)) = queue.waiting.back() else { panic!("no block") };
            (queue.waiting.len(), block.dropped, queue.last.points)
        };
        (0..200).for_each(|_| outbox.push(more()));
        assert_eq!(last(), (SOFT_LIMIT, 0, 200 * of), "twice what it keeps");
        outbox.push(more());
        assert_eq!(last(), (SOFT_LIMIT, 101 * of as u64, 100 * of));
        // Who trusted a count of his own would take this one for small.
        outbox.lock().last.points = 0;
        outbox.push(more());
        assert_eq!(last(), (SOFT_LIMIT, 101 * of as u64, of), "what is there is not looked at");
    }

    #[test]
    fn a_joined_block_names_what_its_first_step_follows() {
        let telemetry = ReportBlock { systems: vec![SystemReport::default()], ..ReportBlock::default() };
        let steps = |step: u64| ReportBlock {
            steps: vec![StepReport { step, ..StepReport::default() }],
            record_before: vec![step as u8],
            ..ReportBlock::default()
        };
        let mut last = telemetry;
        let many = |name: &str| Series { name: name.to_owned(), values: vec![0.0; BLOCK_POINTS], ..Series::default() };
        last.series.push(many("old"));
        join(&mut last, ReportBlock { series: vec![many("new")], ..ReportBlock::default() });
        assert_eq!(trim(&mut last), BLOCK_POINTS);
        assert_eq!((last.series.len(), last.series[0].name.as_str()), (1, "new"));
        assert_eq!(last.dropped, BLOCK_POINTS as u64, "what is dropped is counted");
        join(&mut last, steps(7));
        join(&mut last, steps(8));
        assert_eq!((last.record_before, last.steps.len()), (vec![7], 2));
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
