//! Texts of others for a terminal: what would steer it, or turn the order of letters, is shown and has no effect.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a letter is not shown as it is: controls, and marks that change the direction of what follows.
pub fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with steering letters as `\u{1b}`; ends of lines and tabulators stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let hides = |letter: char| is_steering(letter) && letter != '\n' && letter != '\t';
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if hides(letter) {
            // Writing to a string does not fail.
            let _ = write!(shown, "{}", letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// At most so many letters of a value are quoted in a message.
const QUOTED_LETTERS: usize = 200;

/// A value as a message quotes it: printable, and not longer than a reader reads.
pub fn quoted(text: &str) -> String {
    let shown = printable(text);
    match shown.char_indices().nth(QUOTED_LETTERS) {
        Some((end, _)) => format!("{}[..]", &shown[..end]),
        None => shown.into_owned(),
    }
}

/// Bytes of a message: more than a reader reads, and less than what a header of HTTP/2 may have.
const MESSAGE_BYTES: usize = 2048;

/// The beginning of a message that quotes what may be long.
pub fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES {
        return Cow::Borrowed(message);
    }
    Cow::Owned(format!("{}[..]", &message[..message.floor_char_boundary(MESSAGE_BYTES)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        assert_eq!(printable("a\tb\nü 学"), "a\tb\nü 学");
        assert_eq!(printable("\x1b[2J\r\u{202e}txt\u{9b}"), "\\u{1b}[2J\\u{d}\\u{202e}txt\\u{9b}");
        assert_eq!(quoted(&"é".repeat(300)), format!("{}[..]", "é".repeat(200)));
        assert_eq!(quoted("short\x07"), "short\\u{7}");
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(3000)), format!("{}[..]", "é".repeat(1024)));
    }
}
