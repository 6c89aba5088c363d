//! Where the elements of a tensor lie in its storage.

use super::pickle::{Id, Pickle, Value};

/// Types of elements: libtorch's name of the storage, the checkpoint's of the type, and the width in bytes.
const TYPES: [(&str, &str, usize); 15] = [
    ("FloatStorage", "float", 4),
    ("DoubleStorage", "double", 8),
    ("HalfStorage", "half", 2),
    ("BFloat16Storage", "bfloat16", 2),
    ("LongStorage", "int64", 8),
    ("IntStorage", "int", 4),
    ("ShortStorage", "int16", 2),
    ("CharStorage", "int8", 1),
    ("ByteStorage", "uint8", 1),
    ("BoolStorage", "bool", 1),
    ("Float8_e4m3fnStorage", "float8e4m3fn", 1),
    ("Float8_e5m2Storage", "float8e5m2", 1),
    ("Float8_e4m3fnuzStorage", "float8e4m3fnuz", 1),
    ("Float8_e5m2fnuzStorage", "float8e5m2fnuz", 1),
    ("ComplexFloatStorage", "complexfloat", 8),
];

/// A tensor of a pickle: a view of a storage. Offset and strides count elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Name of the storage.
    pub(super) key: String,
    pub(super) dtype: &'static str,
    pub(super) width: usize,
    pub(super) shape: Vec<i64>,
    offset: usize,
    strides: Vec<usize>,
}

impl View {
    /// The tensor that the value `id` describes.
    ///
    /// # Errors
    /// What it is instead.
    pub(super) fn of(pickle: &Pickle, id: Id) -> Result<Self, String> {
        let Some(((module, function), arguments)) = pickle.call(id) else {
            let what = match pickle.value(id) {
                Value::None => "`None`",
                Value::Object { .. } => "a module or another object",
                _ => "no tensor",
            };
            return Err(format!("it holds {what}"));
        };
        if (module, function) != ("torch._utils", "_rebuild_tensor_v2") {
            return Err(format!(
                "it holds a tensor that `{module}.{function}` makes (sparse, quantized, or of another kind)"
            ));
        }
        Self::from(pickle, arguments).ok_or_else(|| "it holds a tensor in a form that is not known".to_owned())
    }

    /// From what the tensor is made of: storage, offset, sizes, strides, whether it has a gradient, hooks, and flags.
    fn from(pickle: &Pickle, arguments: &[Id]) -> Option<Self> {
        let (&[outside, offset, sizes, strides, _, _], flags) = arguments.split_first_chunk()?;
        // A conjugated or negated view has other values than its storage.
        if flags.iter().any(|&flag| !matches!(pickle.value(flag), Value::Dict(items) if items.is_empty())) {
            return None;
        }
        let Value::Outside(storage) = pickle.value(outside) else { return None };
        let &[_, kind, key, ..] = pickle.tuple(*storage)? else { return None };
        let (_, kind) = pickle.global(kind)?;
        let &(_, dtype, width) = TYPES.iter().find(|(name, ..)| *name == kind)?;
        let numbers = |id| pickle.tuple(id)?.iter().map(|&item| pickle.int(item)).collect::<Option<Vec<i64>>>();
        let counts =
            |numbers: &[i64]| numbers.iter().map(|&number| usize::try_from(number).ok()).collect::<Option<Vec<_>>>();
        let shape = numbers(sizes)?;
        let strides = counts(&numbers(strides)?)?;
        counts(&shape)?;
        let offset = usize::try_from(pickle.int(offset)?).ok()?;
        let key = pickle.text(key)?.to_owned();
        (strides.len() == shape.len()).then_some(Self { key, dtype, width, shape, offset, strides })
    }

    /// Type and shape, for people.
    pub(super) fn words(&self) -> String {
        format!("{} {:?}", self.dtype, self.shape)
    }

    /// Size of its elements in bytes, wherever they lie; `None` if that is more than there can be.
    pub(super) fn bytes(&self) -> Option<usize> {
        self.sizes().try_fold(self.width, usize::checked_mul)
    }

    /// Whether all of it lies in a storage of `bytes` bytes.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        let steps = self.sizes().zip(&self.strides).map(|(size, &stride)| size.saturating_sub(1).checked_mul(stride));
        let last = steps.into_iter().try_fold(self.offset, |sum, step| sum.checked_add(step?));
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(self.width));
        self.bytes().is_some_and(|own| own == 0 || end.is_some_and(|end| end <= bytes))
    }

    /// Writes `values`, row by row, to the places of the elements in `storage`. The view fits, and has as many bytes.
    pub(super) fn put(&self, values: &[u8], storage: &mut [u8]) {
        let width = self.width;
        if let Some(place) = self.block() {
            storage[place].copy_from_slice(values);
            return;
        }
        let mut places = self.places();
        for value in values.chunks_exact(width) {
            let at = places.next().expect("there are as many places") * width;
            storage[at..at + width].copy_from_slice(value);
        }
    }

    /// Whether the elements in `storage` are `values`, row by row.
    pub(super) fn holds(&self, values: &[u8], storage: &[u8]) -> bool {
        let width = self.width;
        match self.block() {
            Some(place) => storage[place] == *values,
            None => self
                .places()
                .zip(values.chunks_exact(width))
                .all(|(at, value)| storage[at * width..][..width] == *value),
        }
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.shape.iter().map(|&size| size as usize)
    }

    /// The bytes of a view whose elements lie one behind the other, row by row.
    fn block(&self) -> Option<std::ops::Range<usize>> {
        let mut next = 1;
        let sizes: Vec<usize> = self.sizes().collect();
        for (&size, &stride) in sizes.iter().zip(&self.strides).rev() {
            if size > 1 && stride != next {
                return None;
            }
            next *= size;
        }
        let begin = self.offset * self.width;
        // Of an empty view nothing is said of where it lies.
        Some(if next == 0 { 0..0 } else { begin..begin + next * self.width })
    }

    /// The places of the elements, row by row.
    fn places(&self) -> impl Iterator<Item = usize> {
        let sizes: Vec<usize> = self.sizes().collect();
        let count: usize = sizes.iter().product();
        (0..count).map(move |mut number| {
            let mut place = self.offset;
            for (&size, &stride) in sizes.iter().zip(&self.strides).rev() {
                place += number % size * stride;
                number /= size;
            }
            place
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(shape: &[i64], offset: usize, strides: &[usize]) -> View {
        let key = "0".to_owned();
        View { key, dtype: "int16", width: 2, shape: shape.to_vec(), offset, strides: strides.to_vec() }
    }

    #[test]
    fn elements_go_where_strides_say() {
        // Columns first, behind one element of another tensor.
        let transposed = view(&[2, 3], 1, &[1, 2]);
        let (values, mut storage) = ([1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0], [9; 14]);
        assert!(transposed.fits(14) && !transposed.fits(13) && transposed.block().is_none());
        transposed.put(&values, &mut storage);
        assert_eq!(storage, [9, 9, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]);
        assert!(transposed.holds(&values, &storage));
        // The same memory, row by row.
        let rows = view(&[3, 2], 1, &[2, 1]);
        assert!(rows.block().is_some() && !rows.holds(&values, &storage));
        assert!(rows.holds(&storage[2..], &storage));
        // One element everywhere, and none at all.
        let spread = view(&[3], 0, &[0]);
        spread.put(&[1, 0, 1, 0, 2, 0], &mut storage);
        assert!(!spread.holds(&[1, 0, 1, 0, 2, 0], &storage));
        let empty = view(&[0, 3], 70, &[3, 1]);
        assert!(empty.fits(0) && empty.holds(&[], &storage));
        for far in [view(&[2], usize::MAX, &[1]), view(&[i64::MAX, 4], 0, &[4, 1]), view(&[3], 0, &[usize::MAX / 2])] {
            assert!(!far.fits(14));
        }
    }
}
