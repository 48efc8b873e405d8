//! Published ports: which port of the machine belongs to which container.
//!
//! A port is taken by binding it, so that no other program can have it too; the same
//! socket serves the userland path. The kernel's translation is the firewall's part.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;
use types::{ContainerId, Error, Result, error::ResultExt as _, port::Protocol};

use crate::{
    model::{Publish, Published, Target},
    proxy::{Bound, Guard},
};

/// The published ports of all containers.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    publications: HashMap<ContainerId, Publication>,
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    /// Where the search for an ephemeral port goes on: a port just given back rests.
    next_ephemeral: u16,
}

#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) target: Target,
    pub(crate) ports: Vec<Published>,
    guards: Vec<Guard>,
}

impl Publication {
    /// Ends the userland paths; returns when their sockets are closed.
    pub(crate) async fn close(self) {
        for guard in self.guards {
            guard.close().await;
        }
    }
}

/// Why one port cannot be had.
enum Refusal {
    /// Another container has it.
    Allocated(IpAddr),
    /// The kernel says no.
    Bind(IpAddr, io::Error),
}

impl Ports {
    /// Takes all ports of `wanted` for `target`, or none. Blocks, for a moment.
    pub(crate) fn take(
        &self,
        target: &Target,
        wanted: &[Publish],
        runtime: &Handle,
    ) -> Result<Vec<Published>> {
        let mut table = self.lock();
        let mut bound = Vec::new();
        for publish in wanted {
            match table.take(target, publish) {
                Ok(taken) => bound.extend(taken),
                Err(error) => {
                    bound.iter().for_each(|(port, _)| table.forget(port));
                    let endpoint =
                        format_args!("endpoint {} ({})", target.name, target.endpoint_id);
                    return Err(error.context(format_args!(
                        "failed to set up container networking: driver failed programming external connectivity on {endpoint}"
                    )));
                }
            }
        }
        let ports: Vec<_> = bound.iter().map(|(port, _)| *port).collect();
        match serve(target, bound, runtime) {
            Ok(guards) => {
                let publication = Publication {
                    target: target.clone(),
                    ports: ports.clone(),
                    guards,
                };
                table.publications.insert(target.id.clone(), publication);
                Ok(ports)
            }
            Err(error) => {
                ports.iter().for_each(|port| table.forget(port));
                Err(error)
            }
        }
    }

    /// Takes up ports that were published by a former run. What cannot be bound any more
    /// keeps its place in the table, without a userland path, and is reported.
    pub(crate) fn adopt(
        &self,
        target: &Target,
        ports: &[Published],
        runtime: &Handle,
    ) -> Vec<(Published, String)> {
        let mut table = self.lock();
        let mut failed = Vec::new();
        let mut guards = Vec::new();
        for port in ports {
            table
                .taken
                .entry((port.protocol, port.host_port))
                .or_default()
                .push(port.host_ip);
            let served = Bound::bind(port.protocol, SocketAddr::new(port.host_ip, port.host_port))
                .and_then(|bound| bound.serve(runtime, backend(target, port)));
            match served {
                Ok(guard) => guards.push(guard),
                Err(error) => failed.push((*port, reason(&error))),
            }
        }
        let publication = Publication {
            target: target.clone(),
            ports: ports.to_vec(),
            guards,
        };
        table.publications.insert(target.id.clone(), publication);
        failed
    }

    /// Whether the container's ports are exactly these, on the same target.
    pub(crate) fn has(&self, target: &Target, ports: &[Published]) -> bool {
        self.lock()
            .publications
            .get(&target.id)
            .is_some_and(|known| known.target == *target && known.ports == ports)
    }

    /// Gives a container's ports back. The caller closes what comes back.
    pub(crate) fn release(&self, id: &ContainerId) -> Option<Publication> {
        let mut table = self.lock();
        let publication = table.publications.remove(id)?;
        publication.ports.iter().for_each(|port| table.forget(port));
        Some(publication)
    }

    /// The containers that have ports.
    pub(crate) fn owners(&self) -> Vec<ContainerId> {
        self.lock().publications.keys().cloned().collect()
    }

    /// Visits every publication.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Target, &[Published])) {
        self.lock()
            .publications
            .values()
            .for_each(|known| visit(&known.target, &known.ports));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes one port on all its addresses, the first of its range that is free.
    fn take(&mut self, target: &Target, publish: &Publish) -> Result<Vec<(Published, Bound)>> {
        let (first, last) = publish.host_ports;
        if (first == 0) != (last == 0) || first > last {
            return Err(Error::invalid(format!(
                "invalid host port range {first}-{last}"
            )));
        }
        let candidates = if first == 0 {
            self.ephemeral()?
        } else {
            (first..=last).collect()
        };
        let mut refusal = None;
        for port in candidates {
            match self.take_port(publish, port) {
                Ok(taken) => {
                    if first == 0 {
                        self.next_ephemeral = port.wrapping_add(1);
                    }
                    return Ok(taken);
                }
                Err(why) => {
                    let hopeless = matches!(&why, Refusal::Bind(_, error) if error.kind() != io::ErrorKind::AddrInUse);
                    // The first reason names the port that was asked for.
                    refusal.get_or_insert((port, why));
                    if hopeless {
                        break;
                    }
                }
            }
        }
        Err(refusal.map_or_else(
            || Error::system("no port is free"),
            |(port, why)| explain(target, publish, port, &why),
        ))
    }

    /// Takes `port` on all addresses that `publish` means.
    fn take_port(
        &mut self,
        publish: &Publish,
        port: u16,
    ) -> Result<Vec<(Published, Bound)>, Refusal> {
        let all = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let addresses = publish
            .host_ip
            .as_ref()
            .map_or(&all[..], std::slice::from_ref);
        let mut taken = Vec::new();
        for &host_ip in addresses {
            if self.is_taken(publish.protocol, host_ip, port) {
                return Err(Refusal::Allocated(host_ip));
            }
            match Bound::bind(publish.protocol, SocketAddr::new(host_ip, port)) {
                Ok(bound) => {
                    let &Publish {
                        protocol,
                        container_port,
                        ..
                    } = publish;
                    taken.push((
                        Published {
                            protocol,
                            container_port,
                            host_ip,
                            host_port: port,
                        },
                        bound,
                    ));
                }
                Err(error)
                    if publish.host_ip.is_none() && host_ip.is_ipv6() && lacks_v6(&error) => {}
                Err(error) => return Err(Refusal::Bind(host_ip, error)),
            }
        }
        for (port, _) in &taken {
            self.taken
                .entry((port.protocol, port.host_port))
                .or_default()
                .push(port.host_ip);
        }
        Ok(taken)
    }

    fn is_taken(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        let collides = |other: &IpAddr| {
            other.is_ipv4() == ip.is_ipv4()
                && (*other == ip || other.is_unspecified() || ip.is_unspecified())
        };
        self.taken
            .get(&(protocol, port))
            .is_some_and(|addresses| addresses.iter().any(collides))
    }

    fn forget(&mut self, port: &Published) {
        let key = (port.protocol, port.host_port);
        if let Some(addresses) = self.taken.get_mut(&key) {
            addresses.retain(|address| *address != port.host_ip);
            if addresses.is_empty() {
                self.taken.remove(&key);
            }
        }
    }

    /// The kernel's range of ephemeral ports, from where the last search ended.
    fn ephemeral(&self) -> Result<Vec<u16>> {
        let path = "/proc/sys/net/ipv4/ip_local_port_range";
        let text = std::fs::read_to_string(path).during(|| format!("reading {path}"))?;
        let mut numbers = text
            .split_whitespace()
            .filter_map(|number| number.parse().ok());
        let (low, high): (u16, u16) = (
            numbers.next().unwrap_or(32768),
            numbers.next().unwrap_or(60999),
        );
        let start = if (low..=high).contains(&self.next_ephemeral) {
            self.next_ephemeral
        } else {
            low
        };
        Ok((start..=high).chain(low..start).collect())
    }
}

fn serve(target: &Target, bound: Vec<(Published, Bound)>, runtime: &Handle) -> Result<Vec<Guard>> {
    let one = |(port, bound): (Published, Bound)| {
        bound
            .serve(runtime, backend(target, &port))
            .during(|| format!("serving port {}", port.host_port))
    };
    bound.into_iter().map(one).collect()
}

/// Where the userland path of a port leads: preferably to an address of the same family.
fn backend(target: &Target, port: &Published) -> Option<SocketAddr> {
    let (v4, v6) = (target.v4.map(IpAddr::V4), target.v6.map(IpAddr::V6));
    let ip = if port.host_ip.is_ipv4() {
        v4.or(v6)
    } else {
        v6.or(v4)
    };
    ip.map(|ip| SocketAddr::new(ip, port.container_port))
}

/// Whether this machine has no IPv6: EAFNOSUPPORT, or EADDRNOTAVAIL for the unspecified address.
fn lacks_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(97 | 99))
}

/// Docker's words for why a port cannot be had.
fn explain(target: &Target, publish: &Publish, port: u16, why: &Refusal) -> Error {
    match why {
        Refusal::Allocated(ip) => Error::system(format!(
            "Bind for {} failed: port is already allocated",
            SocketAddr::new(*ip, port)
        )),
        Refusal::Bind(ip, error) => {
            let Publish {
                protocol,
                container_port,
                ..
            } = *publish;
            let host = SocketAddr::new(*ip, port);
            let published = Published {
                protocol,
                container_port,
                host_ip: *ip,
                host_port: port,
            };
            let inner = backend(target, &published)
                .map(|to| format!(":{to}/{}", protocol.as_str()))
                .unwrap_or_default();
            Error::system(format!(
                "failed to bind host port for {host}{inner}: {}",
                reason(error)
            ))
        }
    }
}

/// The reason in the words of Go's runtime, which users and scripts know from docker.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
