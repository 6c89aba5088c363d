//! Limits of the texts that processes send.

/// Maximum number of bytes of a stored text: a reason, an output or a note.
pub(crate) const TEXT_BYTES: usize = 4096;

/// Cuts the middle of a reason that is longer than [`TEXT_BYTES`]: its beginning says what failed, and its end why.
pub(crate) fn shortened(text: &str) -> String {
    const GAP: &str = "\n[..]\n";
    if text.len() <= TEXT_BYTES {
        return text.to_owned();
    }
    let (mut first, mut rest) = (TEXT_BYTES / 2, text.len() - (TEXT_BYTES / 2 - GAP.len()));
    while !text.is_char_boundary(first) {
        first -= 1;
    }
    while !text.is_char_boundary(rest) {
        rest += 1;
    }
    [&text[..first], GAP, &text[rest..]].concat()
}

/// The last [`TEXT_BYTES`] of an output, where the cause of an error usually is.
pub(crate) fn bounded(text: &str) -> String {
    let mut start = text.len().saturating_sub(TEXT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
