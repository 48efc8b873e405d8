//! The engine: the one place that decides.
//!
//! It turns requests into records and plans, asks node agents to carry them out, and keeps
//! what they report. One file per noun. It knows neither HTTP nor the kernel: APIs call it,
//! and it calls [`agent::NodeAgent`], [`agent::NodeImages`] and [`store::Store`].

mod changes;
mod containers;
mod events;
mod exec;
mod health;
mod images;
pub mod library;
mod networks;
mod pools;
mod push;
pub mod record;
#[cfg(test)]
mod record_golden;
mod registry;
pub mod request;
mod snapshots;
mod system;
mod tenants;
pub mod view;
mod volumes;

use std::sync::Arc;

use agent::{NodeAgent, NodeImages};
use catalog::Catalog;
use store::Store;
use types::{Result, Time};

use crate::{containers::Table, events::Events, library::Library, networks::Networks};
pub use crate::{
    containers::{StatsStream, Waiter},
    events::EventStream,
    images::ImageView,
    request::Scope,
    system::moment,
};

/// Choices of the operator that the engine follows.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the data is, for `docker info`.
    pub data_dir: std::path::PathBuf,
    /// Interface name of the default bridge.
    pub bridge: String,
    /// Subnet of the default bridge; chosen when empty.
    pub bridge_subnet: String,
    /// What subnets of networks are cut from; docker's own ranges when empty.
    pub address_pools: Vec<network::ipam::PoolRange>,
    /// Registries that may be reached insecurely, for `docker info`.
    pub insecure_registries: Vec<String>,
    /// What clients trust the server by, PEM, where its certificate is the operator's: empty for
    /// what everybody trusts.
    pub authorities: Option<String>,
    /// Log options for containers that ask for none.
    pub log_options: std::collections::BTreeMap<String, String>,
    /// Name of the zone that this node is in.
    pub zone: String,
}

impl Settings {
    /// Where IPv4 subnets come from.
    pub(crate) fn pools_v4(&self) -> Vec<network::ipam::PoolRange> {
        let own = self.pools(true);
        if own.is_empty() {
            network::ipam::default_pools()
        } else {
            own
        }
    }

    /// Where IPv6 subnets come from; `seed` makes the range of this installation.
    pub(crate) fn pools_v6(&self, seed: &str) -> Vec<network::ipam::PoolRange> {
        let own = self.pools(false);
        if own.is_empty() {
            vec![network::ipam::private_v6(seed)]
        } else {
            own
        }
    }

    fn pools(&self, v4: bool) -> Vec<network::ipam::PoolRange> {
        let of_family = |range: &&network::ipam::PoolRange| range.base.addr().is_ipv4() == v4;
        self.address_pools
            .iter()
            .filter(of_family)
            .copied()
            .collect()
    }
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// What all clones share.
pub struct Inner {
    settings: Settings,
    store: Arc<dyn Store>,
    agent: Arc<dyn NodeAgent>,
    catalog: Catalog,
    images: Library,
    containers: Table,
    volumes: volumes::Table,
    pools: pools::Table,
    networks: Networks,
    execs: exec::Table,
    events: Events,
    installation: record::InstallationRecord,
    identities: identity::Identities,
    pushes: push::Table,
    turns: tenants::quota::Turns,
    /// None where there is no data directory.
    audit: Option<identity::Audit>,
    writer: containers::StateWriter,
    started_at: Time,
    stopping: tokio::sync::watch::Sender<bool>,
}

impl std::ops::Deref for Engine {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Engine {
    /// Reads the records, finds out what still runs, and takes up its work: restart
    /// policies, health checks, half-done removals.
    pub async fn open(
        settings: Settings,
        store: Arc<dyn Store>,
        agent: Arc<dyn NodeAgent>,
        images: Arc<dyn NodeImages>,
    ) -> Result<Self> {
        let installation = system::installation(store.as_ref()).await?;
        let audit = match settings.data_dir.as_os_str().is_empty() {
            true => None,
            false => {
                let place = settings.data_dir.join("audit");
                let opened = tokio::task::spawn_blocking(move || identity::Audit::open(&place));
                Some(
                    opened
                        .await
                        .map_err(|error| types::Error::wrap("opening the audit log", error))??,
                )
            }
        };
        let networks = Networks::open(&settings, store.as_ref(), agent.as_ref()).await?;
        let volumes = volumes::Table::load(store.as_ref()).await?;
        let pools = pools::Table::load(store.as_ref()).await?;
        let containers = Table::load(store.as_ref()).await?;
        let catalog = Catalog::new(store.clone());
        let identities = identity::Identities::open(store.clone(), installation.short()).await?;
        let writer = containers::StateWriter::spawn(store.clone());
        let engine = Self(Arc::new(Inner {
            settings,
            store,
            agent,
            images: Library::new(catalog.clone(), images),
            catalog,
            containers,
            volumes,
            pools,
            networks,
            execs: exec::Table::default(),
            events: Events::new(),
            installation,
            identities,
            turns: tenants::quota::Turns::default(),
            pushes: push::Table::default(),
            audit,
            writer,
            started_at: Time::now(),
            stopping: tokio::sync::watch::Sender::new(false),
        }));
        engine.recover().await?;
        engine
            .images
            .set_pins(Arc::new(images::Pins(Arc::downgrade(&engine.0))));
        engine
            .images
            .set_limits(Arc::new(tenants::quota::Limits(Arc::downgrade(&engine.0))));
        engine.recover_tenants().await;
        let images = engine.images.clone();
        tokio::spawn(async move {
            if let Err(error) = images.collect_garbage().await {
                tracing::warn!(%error, "layers that nobody needs could not be removed");
            }
        });
        tokio::spawn(expire_pushes(Arc::downgrade(&engine.0)));
        Ok(engine)
    }

    /// When this engine began.
    pub fn started_at(&self) -> Time {
        self.started_at
    }

    /// Stops deciding: no restart policy or health check acts from now on. Containers are
    /// left as they are. Everything observed so far is written down when this returns. With
    /// no container running, the node is left as it was before the first start.
    pub async fn shut_down(&self) {
        let _ = self.stopping.send(true);
        if !self
            .containers
            .all()
            .iter()
            .any(|container| container.is_running())
            && let Err(error) = self.agent.tear_down().await
        {
            tracing::warn!(%error, "the node could not be tidied up; the next start takes it over");
        }
        self.writer.flush().await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// Every hour, what interrupted pushes left a day ago goes; ends with the engine.
async fn expire_pushes(engine: std::sync::Weak<Inner>) {
    let mut hourly = tokio::time::interval(std::time::Duration::from_secs(3600));
    loop {
        hourly.tick().await;
        match engine.upgrade() {
            Some(inner) => Engine(inner).push_expire().await,
            None => return,
        }
    }
}
