//! A real agent between a coordinator and rank processes: real sockets, real processes, real signals.
#![cfg(test)]

mod coordinator;
mod endings;
mod failure;
mod joining;
mod life;
mod programs;
mod support;
