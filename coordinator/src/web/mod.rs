//! The page and its API, for browsers: HTTP on a port of its own. It reads, and changes nothing but notes and tags.
//!
//! Everything that it needs comes from this coordinator: there is no request to anywhere else, and the browser is told to
//! allow none.

mod api;
mod assets;
mod events;
mod guard;
mod large;
mod page;
mod prometheus;
mod server;
mod site;
mod teller;
#[cfg(test)]
mod tests;

pub(crate) use page::Page;
