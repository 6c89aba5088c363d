//! Models and data sets by themselves: what is built in, what a TorchScript file brings, and each format of data.
#![cfg(test)]

mod built_in;
mod data;
mod examples;
mod hidden;
mod oracle;
mod script;
mod support;
mod unseen;
