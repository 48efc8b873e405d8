//! What every command works with.

use client::{Client, Host};

use crate::exit::{Failure, Outcome};

/// The kraud that is spoken to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
}

impl Session {
    /// Speaks to `host`, or to the kraud of this machine.
    pub(crate) fn new(host: Option<&str>) -> Outcome<Self> {
        let host: Host = match host.filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(Failure::from)?,
            None => Host::default(),
        };
        Ok(Self {
            client: Client::new(host),
        })
    }
}
