//! Opens a user's repository so that libgit2 reads it as git does, or rejects it if that is not possible.

mod index;
mod missing;
mod open;
mod owner;
mod sound;

pub(super) use missing::Kinds;
pub(super) use open::{Opened, discover, head_of, history, history_at, open, require};
pub use owner::discover as discover_allowed;
