//! The protocol of a port, which determines when a connection counts as used.

/// Length of the preface that begins every HTTP/2 connection. The server closes a connection that begins with other bytes.
const PREFACE_BYTES: usize = 24;

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// A connection counts as used after its preface.
    Http2,
    /// A connection counts as used after the first answer, which follows a complete head. The HTTP/1 server has a deadline for heads.
    Http1,
}

impl Speaks {
    pub(super) fn has_spoken(self, received: usize, sent: usize) -> bool {
        match self {
            Self::Http2 => received >= PREFACE_BYTES,
            Self::Http1 => sent > 0,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http2 => "gRPC",
            Self::Http1 => "page",
        }
    }
}
