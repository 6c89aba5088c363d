//! Groups of threads and of processes, by the back end that needs no GPU: what is proven of deadlines, cuts and failures holds for
//! whatever a group is made of.
#![cfg(test)]

mod groups;
mod processes;
