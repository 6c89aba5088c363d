//! Formatting of error messages.

use std::error::Error;
use std::fmt::Write as _;

/// `error` and its causes on one line, joined by `: `. A cause whose text already occurs in the line is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = next.source();
    }
    text
}

/// `text` without the C++ stack frames that libtorch appends to its messages.
pub fn without_frames(text: &str) -> String {
    let is_frame = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("frame #").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            || line.starts_with("<omitting python frames>")
    };
    let origin = |line: &str| line.starts_with("Exception raised from ") && line.contains("(most recent call first)");
    let kept: Vec<&str> = text.lines().filter(|line| !is_frame(line) && !origin(line)).collect();
    kept.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_libtorch_stay_and_its_frames_go() {
        let text = "libtorch failed: index 7 is out of bounds\nException raised from nll_loss at /x/y.cpp:123 (most recent call \
                    first):\nframe #0: c10::Error::Error(..) + 0x9 (0x7f in /l/libc10.so)\n  frame #12: main + 1\n";
        assert_eq!(without_frames(text), "libtorch failed: index 7 is out of bounds");
        assert_eq!(without_frames("a frame #1 of mine\nframe #x"), "a frame #1 of mine\nframe #x");
    }

    #[test]
    fn causes_are_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
