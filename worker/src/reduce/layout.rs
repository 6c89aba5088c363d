//! The layout of the flat tensor that is reduced.

use std::ops::Range;

use lockstep_common::{Digest, Domain};
use tch::{Kind, Tensor};

/// Rows and slices begin at multiples of this many elements: a cache line of 32-bit floats.
pub(super) const ALIGN: i64 = 16;

/// The flat form of a model's gradients: the gradients of all parameters in the model's order, then the loss. The reduced tensor also has a
/// head before them, which has for each parameter whether the rank's loss depends on it, and zeros at the end.
///
/// It depends on the parameters alone, is fixed before the first step, and is part of the numerics fingerprint.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    kind: Kind,
    offsets: Vec<i64>,
    shapes: Vec<Vec<i64>>,
    kinds: Vec<Kind>,
    digest: Digest,
}

impl Layout {
    /// The layout for parameters, given as name and tensor.
    ///
    /// Gradients are added in 32-bit floats, or in 64-bit floats if any parameter has 64 bits.
    pub fn new<'a>(parameters: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Self {
        let (mut offsets, mut shapes, mut kinds) = (vec![0], Vec::new(), Vec::new());
        let mut hasher = Domain::Blob.hasher();
        for (name, tensor) in parameters {
            let shape = tensor.size();
            hasher.update(format!("{name} {:?} {shape:?}\n", tensor.kind()).as_bytes());
            offsets.push(offsets[offsets.len() - 1] + tensor.numel() as i64);
            kinds.push(tensor.kind());
            shapes.push(shape);
        }
        let kind = if kinds.contains(&Kind::Double) { Kind::Double } else { Kind::Float };
        Self { kind, offsets, shapes, kinds, digest: Digest::of(&hasher) }
    }

    /// The element type in which gradients are added: `Float` or `Double`.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The index of the first element of each parameter's gradient, and at the end that of the loss.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// Number of elements of all gradients; also the index of the loss.
    pub fn elements(&self) -> i64 {
        self.offsets[self.offsets.len() - 1]
    }

    /// Number of elements of the head: one for each parameter, and zeros up to a multiple of [`ALIGN`].
    ///
    /// The head precedes the gradient of the first parameter, so that it is part of the last bucket to be complete.
    pub(super) fn head(&self) -> i64 {
        (self.shapes.len() as i64 + ALIGN - 1) / ALIGN * ALIGN
    }

    /// Number of elements of the reduced tensor: head, gradients, loss, and zeros up to a multiple of [`ALIGN`].
    pub fn stride(&self) -> i64 {
        self.head() + self.body()
    }

    fn body(&self) -> i64 {
        (self.elements() + ALIGN) / ALIGN * ALIGN
    }

    /// Cuts the reduced tensor into buckets of at least `bytes` bytes. The bucket of the last parameters comes first, because a backward
    /// pass computes their gradients first. The head belongs to the last bucket.
    ///
    /// Cuts are at multiples of [`ALIGN`]: where a parameter begins, or a few elements after it, which then belong to the next bucket.
    pub(super) fn buckets(&self, bytes: i64) -> Vec<Range<i64>> {
        let least = bytes / self.kind.elt_size_in_bytes() as i64;
        let head = self.head();
        let (mut buckets, mut end) = (Vec::new(), self.body());
        for offset in self.offsets[..self.shapes.len()].iter().rev() {
            let start = (offset + ALIGN - 1) / ALIGN * ALIGN;
            if end - start >= least.max(1) {
                buckets.push(if start == 0 { 0..head + end } else { head + start..head + end });
                end = start;
            }
        }
        if end > 0 {
            buckets.push(0..head + end);
        }
        buckets
    }

    /// The layout in words, for the numerics fingerprint.
    pub fn describe(&self) -> String {
        format!("flat {:?}, {} elements, parameters {}", self.kind, self.elements(), self.digest.short())
    }

    /// Each parameter's part of `flat`, in the parameter's shape, and the parameter's element type.
    pub(crate) fn parts(&self, flat: &Tensor) -> Result<Vec<(Tensor, Kind)>, tch::TchError> {
        let part = |(index, shape): (usize, &Vec<i64>)| {
            let (start, end) = (self.offsets[index], self.offsets[index + 1]);
            Ok((flat.f_narrow(0, start, end - start)?.f_view(shape.as_slice())?, self.kinds[index]))
        };
        self.shapes.iter().enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn parameters_lie_in_order_and_the_loss_behind_them() {
        let (a, b) =
            (Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)), Tensor::zeros([5], (Kind::Float, Device::Cpu)));
        let layout = Layout::new([("a", &a), ("b", &b)].into_iter());
        assert_eq!((layout.offsets(), layout.elements(), layout.stride()), (&[0, 6, 11][..], 11, 16 + 16));
        let flat = Tensor::arange(16, (Kind::Float, Device::Cpu));
        let parts = layout.parts(&flat).unwrap();
        assert_eq!(parts[0].0.size(), [2, 3]);
        assert_eq!(Vec::<f32>::try_from(&parts[1].0).unwrap(), [6.0, 7.0, 8.0, 9.0, 10.0]);
        let other = Layout::new([("b", &b), ("a", &a)].into_iter());
        assert_ne!(layout.describe(), other.describe(), "another order is another fingerprint");
    }

    #[test]
    fn buckets_cover_everything_once_from_the_last_parameter_and_split_none_but_at_its_first_elements() {
        for sizes in [vec![5], vec![0, 16, 1], vec![40, 3, 100, 7, 64], vec![3; 50], vec![1000, 1, 2]] {
            let tensors: Vec<Tensor> =
                sizes.iter().map(|size| Tensor::zeros([*size], (Kind::Float, Device::Cpu))).collect();
            let layout = Layout::new(tensors.iter().map(|tensor| ("p", tensor)));
            for bytes in [1, 128, 400, 1 << 20] {
                let buckets = layout.buckets(bytes);
                let mut end = layout.stride();
                for bucket in &buckets {
                    assert_eq!((bucket.end, bucket.start % ALIGN), (end, 0), "{sizes:?} {bytes}: {buckets:?}");
                    let at = (bucket.start - layout.head()).max(0);
                    let begun = layout.offsets().iter().any(|offset| (0..ALIGN).contains(&(at - offset)));
                    assert!(begun, "{sizes:?} {bytes}: {buckets:?}");
                    end = bucket.start;
                }
                assert_eq!(end, 0, "{sizes:?} {bytes}: {buckets:?}");
                let (_, large) = buckets.split_last().unwrap();
                assert!(large.iter().all(|bucket| (bucket.end - bucket.start) * 4 >= bytes), "{buckets:?}");
            }
        }
    }

    #[test]
    fn one_parameter_of_64_bits_makes_all_additions_in_64_bits() {
        let (a, b) =
            (Tensor::zeros([2], (Kind::BFloat16, Device::Cpu)), Tensor::zeros([2], (Kind::Double, Device::Cpu)));
        assert_eq!(Layout::new([("a", &a)].into_iter()).kind(), Kind::Float);
        assert_eq!(Layout::new([("a", &a), ("b", &b)].into_iter()).kind(), Kind::Double);
    }
}
