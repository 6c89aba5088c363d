//! The connection to a coordinator: requests, answers, and blobs to and from its store.

mod blobs;
mod client;
mod questions;
mod reports;

pub(crate) use blobs::at_once;
pub(crate) use client::{Client, Patience, lost};
pub(crate) use questions::{print_json, read, read_run};
