//! Nodes: which may join, and which get work.

mod joining;
mod nodes;
