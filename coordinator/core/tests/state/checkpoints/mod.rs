//! When a checkpoint exists, and what becomes of one that is late.

mod committed;
mod owed;
mod saves;
