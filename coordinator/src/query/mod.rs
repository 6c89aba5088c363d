//! What can be asked of a coordinator, and the documents that answer it: the same to clients and to the page.

mod answers;
pub mod documents;
pub mod page;
mod runs;
#[cfg(test)]
mod tests;
pub mod tracked;
pub mod words;

pub(crate) use answers::Answers;
pub(crate) use runs::Runs;
