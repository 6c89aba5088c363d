//! What each format of files holds, read and checked.

pub(crate) mod csv;
pub(crate) mod idx;
pub(crate) mod npy;
pub(crate) mod safetensors;
pub(crate) mod tokens;
