//! Nodes: who may join, and which get work.

mod joining;
mod nodes;
