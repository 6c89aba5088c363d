//! Protocols, as far as a port knows them.

/// Bytes with which HTTP/2 begins; other ones end the connection.
const PREFACE_BYTES: usize = 24;

/// What is spoken on a port, by which it is told whether a connection has spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// A client begins with a preface.
    Http2,
    /// A client's request has a head, which is complete when there is an answer. The server of HTTP/1 has a deadline for heads.
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
