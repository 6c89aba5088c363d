//! The reduction tree: the order in which ranks' values are added.
//!
//! Floating-point addition is not associative, so the order is part of the contract. The tree over `[0, ranks)` splits
//! at the largest power of two below the count. A process adds the values of its ranks up to the maximal subtrees that it
//! covers. Then the sums of all processes' subtrees are added. For every number of processes, the same additions are
//! made on the same operands. Frozen: `golden/reduction.txt`.
//!
//! ```text
//!   6 ranks        (0 1 2 3 | 4 5)          on 2 processes, process 0 covers [0,2) and [2,3)
//!                  /             \          and process 1 covers [3,4) and [4,6)
//!            (0 1 | 2 3)        (4 5)
//! ```

use std::ops::Range;

/// A node of the tree: the sum over ranks `lo..hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// First rank of the range.
    pub lo: u32,
    /// One past the last rank.
    pub hi: u32,
}

impl Node {
    fn root(ranks: u32) -> Self {
        Self { lo: 0, hi: ranks }
    }

    fn is_leaf(self) -> bool {
        self.hi - self.lo == 1
    }

    fn children(self) -> (Self, Self) {
        let count = self.hi - self.lo;
        let mid = self.lo + (1 << (count - 1).ilog2());
        (Self { hi: mid, ..self }, Self { lo: mid, ..self })
    }

    fn within(self, hosted: &Range<u32>) -> bool {
        hosted.start <= self.lo && self.hi <= hosted.end
    }
}

/// The maximal subtrees inside `hosted`, in rank order. Together they cover `hosted`.
pub fn cover(hosted: &Range<u32>, ranks: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut stack = vec![Node::root(ranks)];
    while let Some(node) = stack.pop() {
        if node.within(hosted) {
            nodes.push(node);
        } else if node.lo < hosted.end && hosted.start < node.hi && !node.is_leaf() {
            let (left, right) = node.children();
            stack.extend([right, left]);
        }
    }
    nodes
}

/// The number of additions to make after the value of `node` was pushed onto a stack. Values are pushed in rank order. Each addition
/// pops the two topmost values and pushes `lower + upper`. Only sums of ranks inside `within` are counted.
pub fn merges(node: Node, within: &Range<u32>, ranks: u32) -> usize {
    let mut count = 0;
    let mut at = Node::root(ranks);
    while at != node {
        count += usize::from(at.hi == node.hi && at.within(within));
        let (left, right) = at.children();
        at = if node.hi <= left.hi { left } else { right };
    }
    count
}

/// Adds `leaves` (one for each rank) in tree order. This is the definition; every other implementation must give the same result.
pub fn reference<T: Clone>(leaves: &[T], add: &impl Fn(&T, &T) -> T) -> T {
    fn sum<T: Clone>(node: Node, leaves: &[T], add: &impl Fn(&T, &T) -> T) -> T {
        if node.is_leaf() {
            return leaves[node.lo as usize].clone();
        }
        let (left, right) = node.children();
        add(&sum(left, leaves, add), &sum(right, leaves, add))
    }
    sum(Node::root(leaves.len() as u32), leaves, add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::hosted;

    fn add(a: &String, b: &String) -> String {
        format!("({a}+{b})")
    }

    fn push(stack: &mut Vec<String>, value: String, merges: usize) {
        stack.push(value);
        for _ in 0..merges {
            let (upper, lower) = (stack.pop().unwrap(), stack.pop().unwrap());
            stack.push(add(&lower, &upper));
        }
    }

    /// The algorithm of the processes: each adds the values of its ranks, then the sums of all subtrees are added.
    fn distributed(ranks: u32, processes: u32) -> String {
        let mut finish = Vec::new();
        for process in 0..processes {
            let hosted = hosted(process, processes, ranks);
            let mut stack = Vec::new();
            for rank in hosted.clone() {
                let leaf = Node { lo: rank, hi: rank + 1 };
                push(&mut stack, rank.to_string(), merges(leaf, &hosted, ranks));
            }
            let nodes = cover(&hosted, ranks);
            assert_eq!(stack.len(), nodes.len());
            for (value, node) in stack.into_iter().zip(nodes) {
                push(&mut finish, value, merges(node, &(0..ranks), ranks));
            }
        }
        assert_eq!(finish.len(), 1);
        finish.remove(0)
    }

    #[test]
    fn every_number_of_processes_makes_the_same_additions() {
        for ranks in 1..34 {
            let leaves: Vec<_> = (0..ranks).map(|r| r.to_string()).collect();
            let expected = reference(&leaves, &add);
            for processes in 1..=ranks {
                assert_eq!(distributed(ranks, processes), expected, "{ranks} ranks on {processes} processes");
            }
        }
    }

    #[test]
    fn the_tree_splits_at_the_largest_power_of_two_below_the_count() {
        let leaves: Vec<_> = (0..6).map(|r| r.to_string()).collect();
        assert_eq!(reference(&leaves, &add), "(((0+1)+(2+3))+(4+5))");
        assert_eq!(reference(&leaves[..3], &add), "((0+1)+2)");
    }
}
