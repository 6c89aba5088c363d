//! The web page and its API: HTTP on a separate port. Everything is read-only except notes and tags.
//!
//! All files of the page come from this coordinator. The page sends no request to other hosts, and its Content-Security-Policy forbids
//! them.

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
