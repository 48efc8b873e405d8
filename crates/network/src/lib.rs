//! The network of this machine's containers: bridges, sandboxes (network namespaces),
//! endpoints, addresses, published ports.
//!
//! The crate makes the local kernel look as its caller says and keeps no records: what
//! networks and endpoints there ought to be is the caller's knowledge, handed in again
//! after a restart ([`Networks::reconcile`]). Everything it makes carries the
//! [`Instance`], so that several krauds, dockerd and others share a machine.
//!
//! Links, addresses and routes are made over netlink, and so are the elements of the
//! nftables sets; `nft` itself runs only when kraud starts. See `ruleset.nft` for what may
//! reach what.
//!
//! A firewall of others that drops forwarded packets (dockerd sets that policy) also drops
//! ours. Foreign tables are never written; a warning names the chain and the remedy.

mod bridge;
mod conntrack;
mod dns;
mod firewall;
pub mod ipam;
mod link;
mod macvlan;
mod model;
mod netlink;
mod netns;
mod proxy;
mod publish;
mod reconcile;
mod sandbox;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use tokio::{runtime::Handle, task::JoinSet};
use types::{ContainerId, Error, Result, error::ResultExt as _};
use userns::UserNamespace;

pub use dns::{HostResolver, Known, Member, Names, Resolver};
pub use model::{
    Bridge, Changed, Endpoint, Instance, LinkName, Live, Mac, Macvlan, MacvlanMode, Publish,
    Published, Report, Settings, Subnet, Target,
};

use firewall::Firewall;
use link::Links;
use netns::{Sandboxes, on_thread, write_sysctl};
use publish::Ports;

/// The networks of one kraud on this machine. Clones share everything.
#[derive(Debug, Clone)]
pub struct Networks(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    instance: Instance,
    sandboxes: Sandboxes,
    firewall: Firewall,
    ports: Ports,
    dns: Arc<dns::Dns>,
    bridges: Mutex<BTreeMap<LinkName, Bridge>>,
    /// Held while a bridge is made, changed or removed.
    bridge_work: Mutex<()>,
    /// Removals that nobody waits for.
    background: Mutex<JoinSet<()>>,
    /// Where userland paths run.
    runtime: Handle,
}

impl Networks {
    /// Loads the instance's firewall rules and turns on forwarding. Must be called within a
    /// tokio runtime, which from then on carries the userland paths.
    ///
    /// Published ports of a former run go on working meanwhile.
    pub async fn open(settings: Settings) -> Result<Self> {
        let runtime = Handle::current();
        on_thread(move || {
            let inner = Inner {
                instance: settings.instance,
                sandboxes: Sandboxes::open(&settings.run_dir)?,
                firewall: Firewall::new(settings.instance),
                ports: Ports::default(),
                dns: Arc::default(),
                bridges: Mutex::default(),
                bridge_work: Mutex::default(),
                background: Mutex::default(),
                runtime,
            };
            inner.firewall.install()?;
            write_sysctl("net.ipv4.ip_forward", "1").during(|| "turning on net.ipv4.ip_forward")?;
            for chain in inner.firewall.foreign_forward_drops() {
                tracing::warn!(
                    "chain {chain} drops forwarded packets by default, also those of kraud's containers; \
                     if that is dockerd's: iptables -I DOCKER-USER -i BRIDGE -j ACCEPT; iptables -I DOCKER-USER -o BRIDGE -j ACCEPT"
                );
            }
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    /// Makes the bridge as described, or changes what differs.
    pub async fn ensure_bridge(&self, bridge: &Bridge) -> Result<Changed> {
        let bridge = bridge.clone();
        self.run(move |inner| inner.ensure_bridge(bridge)).await
    }

    /// Removes a bridge and all that the firewall knew of it. False when there was none. An
    /// interface that kraud did not make stays.
    pub async fn remove_bridge(&self, name: &LinkName) -> Result<bool> {
        let name = name.clone();
        self.run(move |inner| inner.remove_bridge(&name)).await
    }

    /// Makes a network namespace, its loopback interface up, and returns the file that it is
    /// mounted on. One that exists stays.
    pub async fn create_sandbox(&self, id: &ContainerId) -> Result<PathBuf> {
        self.create_sandbox_in(id, None).await
    }

    /// The same, with a user namespace that owns it; without one the machine's own does.
    pub async fn create_sandbox_in(
        &self,
        id: &ContainerId,
        owner: Option<Arc<UserNamespace>>,
    ) -> Result<PathBuf> {
        let id = id.clone();
        self.run(move |inner| inner.sandboxes.create(id.as_str(), owner.as_deref()))
            .await
    }

    /// The file that a sandbox is mounted on, whether it exists or not.
    pub fn sandbox_path(&self, id: &ContainerId) -> PathBuf {
        self.0.sandboxes.path(id.as_str())
    }

    /// Puts an endpoint into a sandbox: the interface is there, addressed and up.
    pub async fn attach(&self, id: &ContainerId, endpoint: &Endpoint) -> Result<()> {
        let (id, endpoint) = (id.clone(), endpoint.clone());
        self.run(move |inner| inner.attach(&id, &endpoint)).await
    }

    /// Removes an endpoint's interface from a sandbox. False when there was none.
    pub async fn detach(&self, id: &ContainerId, ifname: &LinkName) -> Result<bool> {
        let (id, ifname) = (id.clone(), ifname.clone());
        self.run(move |inner| inner.detach(&id, &ifname)).await
    }

    /// Sets a sandbox's default gateways, at most one per family, through `ifname`.
    pub async fn set_gateways(
        &self,
        id: &ContainerId,
        ifname: &LinkName,
        gateways: &[std::net::IpAddr],
    ) -> Result<()> {
        let (id, ifname, gateways) = (id.clone(), ifname.clone(), gateways.to_vec());
        self.run(move |inner| inner.set_gateways(&id, &ifname, &gateways))
            .await
    }

    /// Removes a sandbox and its published ports. False when there was none. The ports are
    /// free when this returns; the kernel takes down interfaces and translations in the
    /// background, see [`Networks::settled`].
    pub async fn delete_sandbox(&self, id: &ContainerId) -> Result<bool> {
        self.0.dns.end(id).await;
        if let Some(publication) = self.0.ports.release(id) {
            self.0.firewall.discard(firewall::port_elements(
                &publication.target,
                &publication.ports,
            ));
            let inner = self.0.clone();
            let ports = publication.ports.clone();
            publication.close().await;
            self.in_background(on_thread(move || inner.forget(&ports)));
        }
        let id = id.clone();
        let removed = self
            .run(move |inner| inner.delete_sandbox(id.as_str()))
            .await?;
        let found = removed.is_some();
        if let Some(outer_ends) = removed.filter(|ends| !ends.is_empty()) {
            let inner = self.0.clone();
            self.in_background(async move {
                inner.bury(outer_ends).await;
                Ok(())
            });
        }
        Ok(found)
    }

    /// Waits until the removals that go on in the background are done.
    pub async fn settled(&self) {
        let background = std::mem::take(&mut *self.0.background());
        background.join_all().await;
    }

    fn in_background(&self, work: impl Future<Output = Result<()>> + Send + 'static) {
        let mut background = self.0.background();
        while background.try_join_next().is_some() {}
        let logged = async {
            if let Err(error) = work.await {
                tracing::warn!("{error}");
            }
        };
        background.spawn_on(logged, &self.0.runtime);
    }

    /// Publishes ports, all or none; what was published for the container before is given
    /// back first. Fails in docker's words when a port is not to be had.
    pub async fn publish(&self, target: &Target, ports: &[Publish]) -> Result<Vec<Published>> {
        self.unpublish(&target.id).await?;
        let (target, ports) = (target.clone(), ports.to_vec());
        self.run(move |inner| inner.publish(&target, &ports)).await
    }

    /// Gives back the ports of a container; they are free when this returns. False when
    /// it had none.
    pub async fn unpublish(&self, id: &ContainerId) -> Result<bool> {
        let Some(publication) = self.0.ports.release(id) else {
            return Ok(false);
        };
        self.0.firewall.discard(firewall::port_elements(
            &publication.target,
            &publication.ports,
        ));
        let ports = publication.ports.clone();
        publication.close().await;
        self.run(move |inner| inner.forget(&ports)).await?;
        Ok(true)
    }

    /// Makes the kernel agree with `live` after a restart: removes sandboxes, links and rules
    /// of this instance that nobody names, takes up the userland paths, mends what is broken.
    /// The bridges must have been ensured before.
    pub async fn reconcile(&self, live: &[Live]) -> Result<Report> {
        for id in self.0.ports_not_in(live) {
            self.unpublish(&id).await?;
        }
        let live = live.to_vec();
        self.run(move |inner| inner.reconcile(&live)).await
    }

    /// The nets that this machine's addresses and routes occupy, for [`ipam::choose`].
    pub async fn used_networks(&self) -> Result<Vec<IpNet>> {
        self.run(|_| {
            let read = || {
                let links = Links::open()?;
                let mut nets: Vec<_> = links.addresses(None)?.iter().map(IpNet::trunc).collect();
                nets.extend(links.route_destinations()?);
                Ok::<_, std::io::Error>(nets)
            };
            read().during(|| "reading this machine's addresses and routes")
        })
        .await
    }

    /// Chains of others that drop forwarded packets by default, and with them those of our
    /// containers, as `family table chain`. For diagnosis.
    pub async fn forward_blockers(&self) -> Result<Vec<String>> {
        self.run(|inner| Ok(inner.firewall.foreign_forward_drops()))
            .await
    }

    /// Removes everything of this instance: sandboxes, links, bridges and the firewall table.
    pub async fn tear_down(&self) -> Result<()> {
        for id in self.0.ports.owners() {
            self.unpublish(&id).await?;
        }
        self.settled().await;
        self.run(Inner::tear_down).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        on_thread(move || work(&inner)).await
    }
}

impl Inner {
    fn publish(&self, target: &Target, ports: &[Publish]) -> Result<Vec<Published>> {
        let published = self.ports.take(target, ports, &self.runtime)?;
        let elements = firewall::port_elements(target, &published);
        if let Err(error) = self.firewall.change(elements, firewall::Elements::new()) {
            drop(self.ports.release(&target.id));
            return Err(error);
        }
        conntrack::forget(&published).during(|| "forgetting UDP flows")?;
        Ok(published)
    }

    /// Takes discarded elements out of the firewall, and the flows that they led.
    fn forget(&self, ports: &[Published]) -> Result<()> {
        self.firewall
            .change(firewall::Elements::new(), firewall::Elements::new())?;
        conntrack::forget(ports).during(|| "forgetting UDP flows")
    }

    fn background(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> Result<Links> {
        Links::open().during(|| "opening a netlink socket")
    }

    fn bridges(&self) -> MutexGuard<'_, BTreeMap<LinkName, Bridge>> {
        // Only whole entries are put in and taken out.
        self.bridges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_bridge(&self, name: &LinkName) -> Result<Bridge> {
        self.bridges()
            .get(name)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("no network has bridge {name}")))
    }
}
