//! What tests of several crates need. It knows nothing of what they test, and links no libtorch.

mod again;
mod modules;
mod namespace;
mod places;
mod port;
mod process;
mod tree;

pub use again::{Again, Outcome};
pub use modules::modules;
pub use namespace::{in_mount_namespace, mount_small};
pub use places::{binary, cache, repository};
pub use port::free_port;
pub use process::Process;
pub use tree::{dirty_tree, git};
