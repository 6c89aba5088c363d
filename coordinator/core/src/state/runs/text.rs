//! Texts that processes send, cut to what a run keeps.

/// Longest text (bytes) that is kept of what a process said: a reason, or its last output.
pub(crate) const TEXT_BYTES: usize = 4096;

/// A reason, whose first words say what happened and whose last ones why: of one that is longer than [`TEXT_BYTES`] the middle is cut.
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

/// The end of an output, where the cause usually stands, cut to [`TEXT_BYTES`].
pub(crate) fn bounded(text: &str) -> String {
    let mut start = text.len().saturating_sub(TEXT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
