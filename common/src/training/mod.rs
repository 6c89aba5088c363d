//! Inputs of a step that depend on the job and the step number alone: seeds, samples, placement of ranks, order of additions,
//! learning rate.

pub mod permutation;
pub mod reduction;
pub mod sampler;
pub mod schedule;
pub mod seed;
pub mod world;
