//! Which of the processes of a generation this is, and what is its own of what they share out.

/// Which of the processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub process: u32,
    /// How many there are.
    pub processes: u32,
}

impl Place {
    /// A process that is alone.
    pub const ALONE: Self = Self { process: 0, processes: 1 };

    /// What is this process's of `all`, where they are dealt out one by one.
    pub(crate) fn own<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.process as usize).step_by(self.processes as usize)
    }
}
