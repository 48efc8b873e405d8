//! The name service of containers on networks of users: 127.0.0.11 inside each sandbox.
//!
//! It owns the sockets, the tables and the questions under way. Which names there are is
//! decided by others and handed in ([`Names`] per network, [`Resolver`] per container); what
//! resolv.conf says inside a container is the agent's. Questions for other names go to the
//! servers of the container or the machine, from within the container's own namespace, unless
//! only the machine can reach them (its loopback).

mod answer;
mod forward;
mod host;
mod names;
mod rules;
mod serve;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use types::{ContainerId, NetworkId, Result, error::ResultExt as _};

pub use host::HostResolver;
pub use names::{Known, Member, Names, Resolver};

use crate::Networks;
use answer::Reply;
use forward::{Opener, Server};
use names::Zone;

/// Questions to others at a time: of one container, and of all.
const OF_ONE: usize = 512;
const OF_ALL: usize = 2048;
/// How long questions are kept waiting for tables that are still to come after a restart.
const TABLES: Duration = Duration::from_secs(10);

/// The name service of one kraud.
#[derive(Debug)]
pub(crate) struct Dns {
    zones: RwLock<HashMap<NetworkId, Arc<Zone>>>,
    zones_changed: Notify,
    serving: Mutex<HashMap<ContainerId, Serving>>,
    host: host::HostServers,
    slots: Arc<Semaphore>,
    opener: OnceLock<Opener>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            zones: RwLock::default(),
            zones_changed: Notify::new(),
            serving: Mutex::default(),
            host: host::HostServers::default(),
            slots: Arc::new(Semaphore::new(OF_ALL)),
            opener: OnceLock::new(),
        }
    }
}

#[derive(Debug)]
struct Serving {
    asker: Arc<Asker>,
    task: JoinHandle<()>,
}

/// A container that asks.
#[derive(Debug)]
pub(crate) struct Asker {
    id: ContainerId,
    namespace: PathBuf,
    resolver: RwLock<Arc<Resolver>>,
    slots: Arc<Semaphore>,
}

impl Asker {
    fn resolver(&self) -> Arc<Resolver> {
        self.resolver
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Dns {
    fn zones(&self) -> std::sync::RwLockReadGuard<'_, HashMap<NetworkId, Arc<Zone>>> {
        self.zones.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, names: &Names) {
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        let newer = zones
            .get(&names.network)
            .is_none_or(|zone| zone.revision < names.revision);
        if newer {
            zones.insert(names.network.clone(), Arc::new(Zone::new(names)));
            drop(zones);
            self.zones_changed.notify_waiters();
        }
    }

    fn forget(&self, network: &NetworkId) {
        self.zones
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(network);
    }

    /// Waits until all tables that a container may ask are there: questions of a container
    /// that was found running wait in its socket meanwhile.
    async fn known(&self, asker: &Asker) {
        let all = || {
            let (zones, resolver) = (self.zones(), asker.resolver());
            resolver
                .networks
                .iter()
                .all(|known| zones.contains_key(&known.network))
        };
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.zones_changed.notified());
                changed.as_mut().enable();
                if all() {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(TABLES, wait).await.is_err() {
            tracing::warn!(id = %asker.id, "nobody told the names of a container's network");
        }
    }

    fn reply(&self, asker: &Asker, packet: &[u8], udp: bool) -> Reply {
        let resolver = asker.resolver();
        let view: Vec<_> = {
            let zones = self.zones();
            let zone = |network| zones.get(network).cloned();
            resolver
                .networks
                .iter()
                .filter_map(|known| Some((zone(&known.network)?, &known.links)))
                .collect()
        };
        answer::reply(packet, &view, resolver.bare_names_stay, udp)
    }

    /// Leave to ask others; none when too many do.
    fn slot(&self, asker: &Asker) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = asker.slots.clone().try_acquire_owned().ok()?;
        let common = self.slots.clone().try_acquire_owned().ok()?;
        Some((own, common))
    }

    fn opener(&self) -> io::Result<Opener> {
        if let Some(opener) = self.opener.get() {
            return Ok(opener.clone());
        }
        // Of two threads that start at once one ends again: nobody sends to it.
        let opener = Opener::start()?;
        Ok(self.opener.get_or_init(|| opener).clone())
    }

    /// Who is asked for names that are not known here.
    async fn servers(&self, asker: &Asker) -> Vec<Server> {
        let resolver = asker.resolver();
        if !resolver.servers.is_empty() {
            let given = resolver.servers.iter();
            return given
                .map(|address| Server {
                    address: *address,
                    from_host: false,
                })
                .collect();
        }
        let servers = self.host.now().await.into_iter().map(|address| Server {
            address,
            from_host: address.is_loopback() || (address.is_ipv6() && !resolver.ipv6),
        });
        servers
            .filter(|server| resolver.outside || !server.from_host)
            .collect()
    }

    fn serving(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the service of a sandbox; its sockets are closed when this returns.
    pub(crate) async fn end(&self, id: &ContainerId) {
        let Some(serving) = self.serving().remove(id) else {
            return;
        };
        serving.task.abort();
        let _ = serving.task.await;
    }
}

impl Networks {
    /// Serves names in a sandbox, which must be there; from then on, answers change with
    /// `resolver` and with the networks' names. Ends with the sandbox.
    pub async fn serve_names(&self, id: &ContainerId, resolver: Resolver) -> Result<()> {
        if let Some(serving) = self.0.dns.serving().get(id) {
            let mut known = serving
                .asker
                .resolver
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *known = Arc::new(resolver);
            return Ok(());
        }
        let during = || format!("serving names to container {}", id.short());
        let sandbox = id.clone();
        let bound = self.run(move |inner| {
            serve::bind(&inner.sandboxes.handle(&sandbox)?).during(|| "opening its sockets")
        });
        let (udp, tcp) = bound.await.map_err(|error| error.context(during()))?;
        let udp = UdpSocket::from_std(udp).during(during)?;
        let tcp = TcpListener::from_std(tcp).during(during)?;
        let asker = Arc::new(Asker {
            id: id.clone(),
            namespace: self.sandbox_path(id),
            resolver: RwLock::new(Arc::new(resolver)),
            slots: Arc::new(Semaphore::new(OF_ONE)),
        });
        let task = self
            .0
            .runtime
            .spawn(serve::serve(self.0.dns.clone(), asker.clone(), udp, tcp));
        let before = self
            .0
            .dns
            .serving()
            .insert(id.clone(), Serving { asker, task });
        if let Some(before) = before {
            before.task.abort();
        }
        Ok(())
    }

    /// Sets all names of a network; what is older than what is known changes nothing.
    pub fn set_names(&self, names: &Names) {
        self.0.dns.set(names);
    }

    /// Forgets the names of a network that is gone.
    pub fn forget_names(&self, network: &NetworkId) {
        self.0.dns.forget(network);
    }
}
