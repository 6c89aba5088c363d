//! Models by themselves: what is built in, and what a TorchScript file brings.
#![cfg(test)]

mod built_in;
mod examples;
mod hidden;
mod oracle;
mod script;
mod support;
mod unseen;
