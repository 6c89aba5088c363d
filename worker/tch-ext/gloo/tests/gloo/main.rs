//! Groups of threads and of processes, with the back end that needs no GPU. Deadlines, cuts and failures are handled by the same code for
//! all back ends.
#![cfg(test)]

mod groups;
mod processes;
