//! Identifiers. Their alphabets are restricted, so that an id is safe as a path component, a URL part and a shell word.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Domain;

/// A text that is not a valid id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct NotAnId {
    text: String,
    what: &'static str,
    rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(NotAnId { text: text.chars().take(80).collect(), what: $what, rule: $rule })
                }
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Digits and lower-case letters without `i l o u`, which are easily misread (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RUN_ID_LEN: usize = 10;

text_id!(
    /// A run's id: ten characters of Crockford's base 32.
    RunId,
    "run id",
    "expected 10 characters of 0-9 a-z without i l o u",
    |text| text.len() == RUN_ID_LEN && text.bytes().all(|b| ALPHABET.contains(&b))
);

text_id!(
    /// A node's name, as set in its agent's configuration: 1 to 63 letters, digits, `.`, `_` or `-`.
    NodeId,
    "node name",
    "expected 1 to 63 characters of a-z A-Z 0-9 . _ -, beginning with a letter or digit",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && text.as_bytes()[0].is_ascii_alphanumeric()
    }
);

text_id!(
    /// The id of one write by one client, so that the write is applied at most once (I4): 32 hexadecimal characters.
    RequestId,
    "request id",
    "expected 32 lower-case hexadecimal characters",
    |text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

impl RunId {
    /// The id of the run that log entry `index` creates for `request`.
    pub fn derive(index: u64, request: &RequestId) -> Self {
        let mut hasher = Domain::Run.hasher();
        hasher.update(&index.to_le_bytes()).update(request.as_str().as_bytes());
        let digest = hasher.finalize();
        Self(digest.as_bytes()[..RUN_ID_LEN].iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect())
    }
}

impl RequestId {
    /// Makes an id from 16 bytes, which the caller must draw at random.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_leave_a_directory_or_a_shell_word() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", "-rf", "ä", "a\0b", &"x".repeat(64)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
            assert!(bad.parse::<RunId>().is_err(), "{bad:?}");
        }
        assert!("node-a.rack_3".parse::<NodeId>().is_ok());
    }

    #[test]
    fn run_ids_are_valid_and_differ_by_index_and_request() {
        let request = RequestId::from_bytes([7; 16]);
        let id = RunId::derive(3, &request);
        assert_eq!(id.as_str().parse::<RunId>(), Ok(id.clone()));
        assert_ne!(id, RunId::derive(4, &request));
        assert_ne!(id, RunId::derive(3, &RequestId::from_bytes([8; 16])));
    }
}
