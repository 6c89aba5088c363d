//! Made-up runs, healthy and broken, and what is said of them.

mod faults;
mod generate;
mod healthy;
mod watch;
