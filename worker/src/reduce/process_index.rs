//! Which of the processes of a generation this is, and what is its own of what they share out.

/// Which of the processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessIndex {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl ProcessIndex {
    /// A process that is alone.
    pub const ALONE: Self = Self { index: 0, count: 1 };

    /// This process's shard of `all`: every `count`-th item.
    pub(crate) fn shard<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.index as usize).step_by(self.count as usize)
    }
}
