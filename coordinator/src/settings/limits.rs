//! `[limits]` of `coordinator.toml`: resources that clients and runs can use.

use lockstep_tracking::Quota;
use serde::Deserialize;

use super::error::SettingsError;
use lockstep_net::listen::{self, Ports};

/// Upper bound of the connection limits; a typing error is rejected instead of allocated.
const MOST_CONNECTIONS: u64 = 1 << 20;

/// Upper bound of `disk_reserve`, in bytes: larger than any disk.
const MOST_RESERVED: u64 = 1 << 60;

/// The keys of the file, unchecked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLimits {
    connections: u64,
    page_connections: u64,
    page_listeners: u64,
    media: u64,
    media_bytes: u64,
    text_bytes: u64,
    series: u64,
    disk_reserve: u64,
}

/// The checked limits, see `[limits]` in `configs/coordinator.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections to the gRPC port and to the page's port.
    pub(crate) ports: Ports,
    /// Simultaneous subscribers of the page's live events.
    pub page_listeners: usize,
    /// Images, texts, files and series of one run.
    pub media: Quota,
    /// Bytes that uploads leave free on the disk with the coordinator's database.
    pub disk_reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ports: Ports::default(), page_listeners: 64, media: Quota::default(), disk_reserve: 256 << 20 }
    }
}

impl RawLimits {
    pub(crate) fn check(self) -> Result<Limits, SettingsError> {
        let within = |key, value: u64, least, most| {
            if (least..=most).contains(&value) {
                Ok(value as usize)
            } else {
                Err(SettingsError::Number { key, value, least, most })
            }
        };
        let connections = within("limits.connections", self.connections, 16, MOST_CONNECTIONS)?;
        let page = within("limits.page_connections", self.page_connections, 8, MOST_CONNECTIONS)?;
        Ok(Limits {
            ports: Ports { grpc: listen::Limits::of(connections), page: listen::Limits::of(page) },
            page_listeners: within("limits.page_listeners", self.page_listeners, 0, self.page_connections)?,
            media: Quota {
                items: self.media,
                bytes: self.media_bytes,
                text_bytes: self.text_bytes,
                series: self.series,
            },
            disk_reserve: within("limits.disk_reserve", self.disk_reserve, 0, MOST_RESERVED)? as u64,
        })
    }
}
