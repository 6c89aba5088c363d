//! Memory: growth without end, of a process or of what its device's allocator gave out; and fragmentation, when the allocator
//! reserves ever more of the device for the same use.
//!
//! Over steps, not over time: what leaks, leaks by the step. When growth counts is in [`crate::growth`], over no less
//! than [`SAMPLES`] samples and [`STEPS`] steps: in so many an allocator may warm up and a cache fill. What is reserved follows what
//! is allocated: only where that is level is it judged, as fragmentation.

use crate::alarm::{Kind, Severity};
use crate::board::{Board, Finding};
use crate::growth::{FEWEST, Growth, noise_of, onset, rise, steady};
use crate::history::{Span, Trail};
use crate::robust::figure;
use crate::seen::Seen;
use crate::slot::{MEMORY_BLOCK, Memory, Role, Slot};

/// Samples of a run, and steps of a stretch of growth, that are judged.
const SAMPLES: usize = 96;
const STEPS: u32 = 3000;

/// Bytes that it must have grown by.
const LEAST: f64 = 8e6;

/// Of the growth of what is reserved: less is level.
const LEVEL: f64 = 0.25;

/// Reserved, of allocated.
const MUCH: f64 = 1.25;

/// Evaluations or checkpoints whose steps are compared with the growth.
const MARKS: usize = 24;

const LEAK: &[&str] = &[
    "look for what is kept from step to step: tensors or their graphs in lists of losses or metrics (detach them), caches, logs",
    "take a heap profile a few thousand steps apart and compare",
    "if the data set is mapped into memory, its pages count until all are read: growth then ends with the first epoch",
];

const FRAGMENTS: &[&str] = &[
    "set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    "make shapes repeat: pad batches to a few lengths, drop the last incomplete one",
    "allocate the largest batch first",
];

/// Judges the memory `slot` of one process.
pub(crate) fn look(seen: &Seen, slot: &Slot, board: &mut Board) {
    let Role::Memory(memory) = slot.role else { return };
    let windows = slot.windows.spans();
    let Some(last) = windows.last() else { return };
    let allocated =
        if memory == Memory::Reserved { seen.part(Role::Memory(Memory::Allocated), slot.key.part) } else { None };
    let kind = if allocated.is_some() { Kind::Fragmentation } else { Kind::MemoryGrowth };
    // Of a process there are three.
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

/// Whether what is used explains too little of what is reserved.
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
        "Since about step {since} the {name} of {owner} grows by {} MB in 100 steps; it is {} MB now.",
        figure(growth.per_step * 100.0 / 1e6),
        figure(last.value() / 1e6),
    )];
    if let Some(used) = used {
        what.push(format!("Of it {} MB are allocated, and that is level.", figure(used.value() / 1e6)));
    }
    for (marks, event) in [(&seen.evaluations, "an evaluation"), (&seen.checkpoints, "a checkpoint")] {
        if comes_with(windows, marks, growth) {
            what.push(format!("It grows where {event} is."));
        } else if marks
            .points()
            .first()
            .is_some_and(|mark| mark.0.abs_diff(since) <= (last.to - last.from).saturating_add(1) && since > 0)
        {
            what.push(format!("It began with the first step that had {event}."));
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
            Kind::Fragmentation => "the allocator reserves ever more device memory for the same use".into(),
            _ => format!("{name} grows without end"),
        },
        what: what.join(" "),
        advice: if kind == Kind::Fragmentation { FRAGMENTS } else { LEAK },
        level: growth.per_step,
    }
}

/// Whether four fifths of the newest growth are between windows with a mark between them, which are half of them at most.
fn comes_with(windows: &[Span], marks: &Trail<u8>, growth: Growth) -> bool {
    let marks = marks.newest(MARKS);
    let Some(begin) = marks.first().map(|mark| mark.0.max(growth.from)) else { return false };
    let mut all = (0, 0.0);
    let mut marked = (0, 0.0);
    for pair in windows.windows(2).filter(|pair| pair[0].from >= begin) {
        // A mark within the later window, whose samples are then mostly after it, or in the second half of the earlier.
        let middle = |span: &Span| span.from.midpoint(span.to);
        let rise = pair[1].value() - pair[0].value();
        all = (all.0 + 1, all.1 + rise);
        if marks.iter().any(|mark| middle(&pair[0]) < mark.0 && mark.0 <= middle(&pair[1])) {
            marked = (marked.0 + 1, marked.1 + rise);
        }
    }
    all.0 >= FEWEST && 2 * marked.0 <= all.0 && marked.1 > 0.8 * all.1
}
