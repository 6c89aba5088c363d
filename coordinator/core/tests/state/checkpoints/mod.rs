//! Checkpoints: commit, owed checkpoints, and the last checkpoint of a run.

mod committed;
mod owed;
mod saves;
