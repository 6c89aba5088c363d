//! Recognises files that look like something else than flat tokens. All bytes are valid tokens, so a file of another format
//! or element type can only be recognised by patterns in its bytes.

use lockstep_common::job::TokenType;
use safetensors::tensor::Metadata;

/// Formats by their first bytes: at least 4, so that tokens rarely match by chance.
const MAGIC: [(&[u8], &str); 9] = [
    (b"\x93NUMPY", "an npy array"),
    (b"PK\x03\x04", "a zip archive (as npz and PyTorch files are)"),
    (b"\x28\xb5\x2f\xfd", "a file packed by zstd"),
    (b"\xfd7zXZ\x00", "a file packed by xz"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"ARROW1\x00\x00", "an Arrow file"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"MMIDIDX\x00\x00", "a Megatron index (its tokens are in the `.bin` file beside it)"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
];

/// Bytes at the beginning by which element types are recognised.
const LOOK: usize = 64 << 10;

/// Below this number of bytes no element type is recognised: a match could be chance.
const FEWEST: usize = 64;

/// What `bytes` look like; `None` if they can be tokens of `dtype`.
pub(crate) fn lookalike(bytes: &[u8], dtype: TokenType) -> Option<&'static str> {
    format(bytes).or_else(|| element(&bytes[..bytes.len().min(LOOK)], bytes.len(), dtype))
}

fn format(bytes: &[u8]) -> Option<&'static str> {
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(name);
    }
    if bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1") {
        return Some("a Parquet file");
    }
    if is_idx(bytes) {
        return Some("an IDX file");
    }
    // gzip: method 8 (deflate), no reserved flag, and a known compression level and operating system.
    if let [0x1f, 0x8b, 8, flags, _, _, _, _, 0 | 2 | 4, system, ..] = *bytes
        && flags & 0xe0 == 0
        && (system <= 13 || system == 255)
    {
        return Some("a file packed by gzip");
    }
    let (length, rest) = bytes.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let is_safetensors = header.starts_with(b"{") && serde_json::from_slice::<Metadata>(header).is_ok();
    is_safetensors.then_some("a safetensors file")
}

/// Whether `bytes` is an IDX file of unsigned bytes, with exactly as many elements as its header says.
fn is_idx(bytes: &[u8]) -> bool {
    let [0, 0, 8, axes @ 1..=4, rest @ ..] = bytes else { return false };
    let Some((sizes, elements)) = rest.split_at_checked(4 * usize::from(*axes)) else { return false };
    let sizes = sizes.as_chunks::<4>().0.iter().map(|size| u64::from(u32::from_be_bytes(*size)));
    let product = sizes.into_iter().try_fold(1_u64, u64::checked_mul);
    product == Some(elements.len() as u64)
}

/// The element type that the beginning of a file of `length` bytes suggests, if it is not `dtype`.
fn element(bytes: &[u8], length: usize, dtype: TokenType) -> Option<&'static str> {
    if bytes.len() < FEWEST {
        return None;
    }
    if dtype == TokenType::U16 && is_text(bytes) {
        return Some("text (one byte for each token: `data.dtype = \"u8\"`)");
    }
    let integers = |width: usize| length.is_multiple_of(width) && high_bytes_are_zero(bytes, width);
    if integers(8) {
        return Some("64-bit integers");
    }
    if integers(4) {
        return Some("32-bit integers");
    }
    let pairs = bytes.as_chunks::<2>().0;
    let wide =
        length.is_multiple_of(2) && pairs.iter().all(|[_, high]| *high < 16) && pairs.iter().any(|[low, _]| *low >= 64);
    let wide = wide || length.is_multiple_of(2) && alternates(pairs);
    (dtype == TokenType::U8 && wide).then_some("16-bit integers (`data.dtype = \"u16\"`)")
}

/// Whether the second byte of the pairs has a much narrower distribution than the first, as the high bytes of 16-bit tokens have.
/// One-byte tokens have the same distribution at odd and even places.
fn alternates(pairs: &[[u8; 2]]) -> bool {
    /// With fewer pairs the distributions may differ by chance; with fewer values of the first byte the file may be a regular pattern.
    const PAIRS: usize = 1024;
    const VALUES: usize = 64;
    let count = |place: usize| {
        let mut counts = [0_usize; 256];
        for pair in pairs {
            counts[usize::from(pair[place])] += 1;
        }
        counts
    };
    let (low, high) = (count(0), count(1));
    let most = |mut counts: [usize; 256]| {
        counts.sort_unstable();
        counts[248..].iter().sum::<usize>()
    };
    let unlike: usize = low.iter().zip(&high).map(|(low, high)| low.abs_diff(*high)).sum();
    pairs.len() >= PAIRS
        && low.iter().filter(|&&count| count > 0).count() >= VALUES
        // Three of ten bytes would have to change to make the distributions equal.
        && unlike * 10 >= pairs.len() * 6
        && most(high) * 2 >= pairs.len()
        && most(high) * 2 >= most(low) * 3
}

/// Whether these are printable characters in UTF-8; the last one may be incomplete.
fn is_text(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\r' | '\t' | '\x0c'))
}

/// Whether these are numbers of `width` bytes below 2^16, and not all of them 0.
fn high_bytes_are_zero(bytes: &[u8], width: usize) -> bool {
    let mut numbers = bytes.chunks_exact(width);
    numbers.all(|number| number[2..].iter().all(|&byte| byte == 0)) && bytes.iter().any(|&byte| byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn little<const N: usize>(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
        numbers.flat_map(|number| number.to_le_bytes()[..N].to_vec()).collect()
    }

    #[test]
    fn formats_are_known_by_how_they_begin() {
        let gzip = [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 0, 3, 99];
        let header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let tensors = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
        for (bytes, words) in [
            (&b"\x93NUMPY\x01\x00"[..], "npy"),
            (b"PK\x03\x04....", "zip"),
            (b"PAR1....PAR1", "Parquet"),
            (&gzip, "gzip"),
            (&tensors, "safetensors"),
            (&[0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9], "IDX"),
            (&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 8, 9], "IDX"),
        ] {
            for dtype in [TokenType::U8, TokenType::U16] {
                assert!(lookalike(bytes, dtype).is_some_and(|found| found.contains(words)), "{words}");
            }
        }
        let reserved = [0x1f, 0x8b, 8, 0xe0, 1, 2, 3, 4, 0, 3, 99];
        for tokens in [
            &b"PAR1 is how this text begins"[..],
            &reserved,
            b"\x1f\x8b",
            b"PK\x03",
            b"",
            &tensors[..40],
            // The header says another length.
            &[0, 0, 8, 1, 0, 0, 0, 3, 7, 8],
            &[0, 0, 8, 1, 0, 0, 0],
            &[0, 0, 8, 5, 1, 2, 3, 4],
        ] {
            assert_eq!(lookalike(tokens, TokenType::U8), None, "{tokens:?}");
        }
    }

    #[test]
    fn element_types_are_known_by_their_bytes() {
        let text = "In the beginning was the word; naïve readers took it for numbers.\n".repeat(9);
        assert!(lookalike(text.as_bytes(), TokenType::U16).is_some_and(|found| found.contains("\"u8\"")));
        assert_eq!(lookalike(text.as_bytes(), TokenType::U8), None);
        let numbers = || (0..200).map(|index: u64| index * 7919 % 1000);
        let wide = little::<2>(numbers());
        assert!(lookalike(&wide, TokenType::U8).is_some_and(|found| found.contains("\"u16\"")));
        assert_eq!(lookalike(&wide, TokenType::U16), None);
        for dtype in [TokenType::U8, TokenType::U16] {
            assert_eq!(lookalike(&little::<4>(numbers()), dtype), Some("32-bit integers"));
            assert_eq!(lookalike(&little::<8>(numbers()), dtype), Some("64-bit integers"));
            assert_eq!(lookalike(&[0; 400], dtype), None, "one token, again and again");
            assert_eq!(lookalike(&little::<4>(numbers())[..40], dtype), None, "too few to tell");
        }
        // Tokens of a large vocabulary that are sorted by frequency: token n has a frequency of about 1 / n.
        let mut random = 1_u64;
        let mut draw = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 11) as f64 / (1_u64 << 53) as f64
        };
        let large = little::<2>((0..4000).map(|_| 50_257_f64.powf(draw()) as u64));
        assert!(lookalike(&large, TokenType::U8).is_some_and(|found| found.contains("\"u16\"")));
        assert_eq!(lookalike(&large, TokenType::U16), None);
        assert_eq!(lookalike(&large[..1000], TokenType::U8), None, "too few to tell");
        let counted: Vec<u8> = (0..=255).cycle().take(4000).collect();
        let drawn: Vec<u8> = (0..8000).map(|_| 256_f64.powf(draw()) as u8).collect();
        let pattern: Vec<u8> =
            (0..4000).map(|index: u32| if index.is_multiple_of(2) { (index % 50) as u8 } else { 100 }).collect();
        let cyrillic = "Вначале было слово, и слово было короткое; а потом стало длиннее.\n".repeat(90);
        for bytes in [&counted, &drawn, &pattern, cyrillic.as_bytes()] {
            assert_eq!(lookalike(bytes, TokenType::U8), None, "{:?}", &bytes[..20]);
        }
        let bytes: Vec<u8> = (0..400_u32).map(|index| (index * 7919 % 251) as u8).collect();
        assert_eq!(lookalike(&bytes, TokenType::U8), None);
        assert_eq!(lookalike(&bytes, TokenType::U16), None);
    }
}
