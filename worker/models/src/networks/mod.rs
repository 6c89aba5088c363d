//! The built-in networks and their layers.

mod gpt;
mod layers;
mod mlp;
mod resnet;

pub(crate) use gpt::{Gpt, Sizes};
pub(crate) use mlp::Mlp;
pub(crate) use resnet::Resnet;
