//! Readers for the formats of data files. Each checks the whole file when it opens it.

pub(crate) mod csv;
pub(crate) mod idx;
pub(crate) mod npy;
pub(crate) mod safetensors;
pub(crate) mod tokens;
