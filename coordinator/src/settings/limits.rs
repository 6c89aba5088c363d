//! `[limits]` of `coordinator.toml`: what clients and runs may take of this coordinator.

use lockstep_tracking::Quota;
use serde::Deserialize;

use super::error::SettingsError;
use lockstep_net::listen::{self, Ports};

/// More connections than a port has numbers for come from nowhere.
const MOST_CONNECTIONS: u64 = 1 << 20;

/// Bytes: no disk is larger, and a reserve is a part of one.
const MOST_RESERVED: u64 = 1 << 60;

/// The keys as written.
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

/// What was checked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of connections.
    pub(crate) ports: Ports,
    /// Listeners of the page's events at a time.
    pub page_listeners: usize,
    /// Of a run's images, texts, files and series.
    pub media: Quota,
    /// Bytes that uploads leave on the disk of the coordinator's own log.
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
