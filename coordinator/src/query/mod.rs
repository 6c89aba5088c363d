//! Questions to a coordinator, and the JSON documents that answer them: the same for `coord` and for the page.

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
