//! Somebody's repository, opened so that libgit2 sees what git sees, and refused where it cannot.

mod index;
mod missing;
mod open;
mod owner;
mod sound;

pub(super) use missing::Kinds;
pub(super) use open::{Opened, discover, head_of, history, history_at, open, require};
pub use owner::discover as discover_allowed;
