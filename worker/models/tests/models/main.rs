//! Models without the training loop: the built-in models, and TorchScript modules.
#![cfg(test)]

mod built_in;
mod examples;
mod hidden;
mod oracle;
mod script;
mod support;
mod unseen;
