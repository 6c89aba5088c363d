//! Escapes foreign texts for a terminal, so that control characters and direction marks have no effect there.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character is a control character or a mark that changes the direction of text.
pub fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with control characters and direction marks escaped as in `\u{1b}`. Line ends and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let hides = |letter: char| is_steering(letter) && letter != '\n' && letter != '\t';
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if hides(letter) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Characters of a value that a message quotes at most.
const QUOTED_LETTERS: usize = 200;

/// `text` for quoting in a message: escaped, and cut to 200 characters.
pub fn quoted(text: &str) -> String {
    let shown = printable(text);
    match shown.char_indices().nth(QUOTED_LETTERS) {
        Some((end, _)) => format!("{}[..]", &shown[..end]),
        None => shown.into_owned(),
    }
}

/// Bytes of a message at most. An HTTP/2 header, which carries the message of a gRPC status, may be longer.
const MESSAGE_BYTES: usize = 2048;

/// `message`, cut to 2048 bytes.
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
