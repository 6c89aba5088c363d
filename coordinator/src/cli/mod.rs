//! The command line of `coord`: words in, typed requests out, answers for people or as JSON.

mod args;
mod blobs;
mod card;
mod checkout;
mod client;
mod compare;
mod data;
mod diff;
mod error;
mod exit;
mod export;
mod fence;
mod follow;
mod interrupt;
mod lineage;
mod local;
mod measure;
mod metrics;
mod output;
mod prepare;
mod progress;
mod readers;
mod replay;
mod reproduce;
mod resume;
mod run;
mod select;
mod serve;
mod start;
mod target;
mod time;
mod tracked;
mod verify;

pub use args::Arguments;
pub use exit::Exit;
pub use run::run;
