//! What decides a step: seeds, samples, ranks on processes, the order of additions, the learning rate.

pub mod permutation;
pub mod reduction;
pub mod sampler;
pub mod schedule;
pub mod seed;
pub mod world;
