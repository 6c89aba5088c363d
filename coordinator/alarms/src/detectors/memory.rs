//! Memory: steady growth of a process's memory or of the memory that its device's allocator has allocated; and fragmentation: the
//! allocator reserves more and more device memory while the allocated memory stays level.
//!
//! Growth is measured per step, not per second, because a leak depends on steps. [`crate::growth`] decides what counts as growth.
//! It needs [`SAMPLES`] samples and [`STEPS`] steps, in which allocators warm up and caches fill. Reserved memory follows allocated
//! memory, so it is judged only while the allocated memory is level.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::growth::{FEWEST, Growth, noise_of, onset, rise, steady};
use crate::history::{Span, Trail};
use crate::robust::figure;
use crate::seen::Seen;
use crate::slot::{MEMORY_BLOCK, Memory, Role, Slot};

/// Smallest number of samples of a run, and smallest length of a stretch of growth in steps.
const SAMPLES: usize = 96;
const STEPS: u32 = 3000;

/// Smallest growth, in bytes.
const LEAST: f64 = 8e6;

/// Allocated memory is level if it grows by less than this share of the growth of reserved memory.
const LEVEL: f64 = 0.25;

/// Smallest ratio of reserved and allocated memory that is fragmentation.
const MUCH: f64 = 1.25;

/// Number of newest evaluations or checkpoints whose steps are compared with the growth.
const MARKS: usize = 24;

const LEAK: &[&str] = &[
    "look for data that is kept from step to step: lists of losses or metrics whose tensors keep their graph (detach them), caches",
    "compare two heap profiles that are a few thousand steps apart",
    "ignore the alarm in the first epoch if the data is mapped into memory: its pages count once they are read",
];

const FRAGMENTS: &[&str] = &[
    "set `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True` in the environment of the worker",
    "use few different shapes: pad batches to a few lengths",
    "run the largest batch first",
];

/// Judges the memory `slot` of one process.
pub(crate) fn look(seen: &Seen, slot: &Slot, board: &mut Board) {
    let Role::Memory(memory) = slot.role else { return };
    let windows = slot.windows.spans();
    let Some(last) = windows.last() else { return };
    let allocated =
        if memory == Memory::Reserved { seen.part(Role::Memory(Memory::Allocated), slot.key.part) } else { None };
    let kind = if allocated.is_some() { Kind::Fragmentation } else { Kind::MemoryGrowth };
    // A process has three kinds of memory.
    let subject = Some(slot.part().saturating_mul(4).saturating_add(memory as u32));
    if let Some(entry) = board.standing(kind, subject) {
        let newest = &windows[windows.len() - (windows.len() / 8).max(FEWEST).min(windows.len())..];
        let (rise, error) = rise(newest, noise_of(windows));
        let expected = entry.level * f64::from(last.to - newest[0].from);
        if newest[0].to > crate::history::short(entry.alarm.since_step) && rise + 2.0 * error < 0.3 * expected {
            board.end(kind, subject, newest[0].from);
            return;
        }
    }
    if windows.len() * slot.windows.width() * MEMORY_BLOCK < SAMPLES {
        return;
    }
    let Some(growth) = steady(windows, LEAST, STEPS) else { return };
    let used = allocated.map(|slot| slot.windows.spans());
    if used.is_some_and(|used| !fragments(used, growth, last)) {
        return;
    }
    board.raise(finding(seen, slot, kind, subject, growth, used.and_then(<[Span]>::last)));
}

/// Whether allocated memory is level and much smaller than reserved memory.
fn fragments(used: &[Span], growth: Growth, reserved: &Span) -> bool {
    let stretch = &used[used.partition_point(|window| window.from < growth.from)..];
    let Some(last) = stretch.last() else { return false };
    stretch.len() >= FEWEST && rise(stretch, 0.0).0 < LEVEL * growth.rise && reserved.value() > MUCH * last.value()
}

fn finding(seen: &Seen, slot: &Slot, kind: Kind, subject: Option<u32>, growth: Growth, used: Option<&Span>) -> Finding {
    let windows = slot.windows.spans();
    let since = onset(windows);
    let last = windows[windows.len() - 1];
    let name = match slot.role {
        Role::Memory(Memory::Resident) => "resident memory",
        Role::Memory(Memory::Allocated) => "allocated device memory",
        _ => "reserved device memory",
    };
    let owner = slot.key.part.map_or_else(|| "the process".into(), |part| format!("process {part}"));
    let mut what = vec![format!(
        "Since about step {since} the {name} of {owner} has grown by {} MB per 100 steps; it is now {} MB.",
        figure(growth.per_step * 100.0 / 1e6),
        figure(last.value() / 1e6),
    )];
    if let Some(used) = used {
        what.push(format!(
            "Only {} MB of it are allocated, and this amount does not grow.",
            figure(used.value() / 1e6)
        ));
    }
    for (marks, event) in [(&seen.evaluations, "an evaluation"), (&seen.checkpoints, "a checkpoint")] {
        if comes_with(windows, marks, growth) {
            what.push(format!("It grows at steps with {event}."));
        } else if marks
            .points()
            .first()
            .is_some_and(|mark| mark.0.abs_diff(since) <= (last.to - last.from).saturating_add(1) && since > 0)
        {
            what.push(format!("The growth began with the first step with {event}."));
        }
    }
    Finding {
        kind,
        subject,
        severity: Severity::Warning,
        since,
        since_ms: seen.ms(since),
        place: Some(owner),
        series: slot.key.clone(),
        title: match kind {
            Kind::Fragmentation => "reserved device memory grows, allocated memory does not".into(),
            _ => format!("{name} grows steadily"),
        },
        what: what.join(" "),
        advice: if kind == Kind::Fragmentation { FRAGMENTS } else { LEAK },
        level: growth.per_step,
    }
}

/// Whether more than four fifths of the newest growth are between windows with a mark between them, and these are at most half
/// of all windows.
fn comes_with(windows: &[Span], marks: &Trail<u8>, growth: Growth) -> bool {
    let marks = marks.newest(MARKS);
    let Some(begin) = marks.first().map(|mark| mark.0.max(growth.from)) else { return false };
    let mut all = (0, 0.0);
    let mut marked = (0, 0.0);
    for pair in windows.windows(2).filter(|pair| pair[0].from >= begin) {
        // A mark counts in the second half of the earlier window or in the first half of the later one.
        let middle = |span: &Span| span.from.midpoint(span.to);
        let rise = pair[1].value() - pair[0].value();
        all = (all.0 + 1, all.1 + rise);
        if marks.iter().any(|mark| middle(&pair[0]) < mark.0 && mark.0 <= middle(&pair[1])) {
            marked = (marked.0 + 1, marked.1 + rise);
        }
    }
    all.0 >= FEWEST && 2 * marked.0 <= all.0 && marked.1 > 0.8 * all.1
}
