//! What lies in the store, and whether a run is saved there.

mod saves;
mod store;
