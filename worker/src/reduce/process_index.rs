//! The index of a process in its generation, and its part of divided work.

/// The index of a process, and the number of processes of its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessIndex {
    /// Index of this process, from 0.
    pub index: u32,
    /// Number of processes.
    pub count: u32,
}

impl ProcessIndex {
    /// The only process of a generation.
    pub const ALONE: Self = Self { index: 0, count: 1 };

    /// This process's part of `all`: every `count`-th item, beginning with item `index`.
    pub(crate) fn shard<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.index as usize).step_by(self.count as usize)
    }
}
