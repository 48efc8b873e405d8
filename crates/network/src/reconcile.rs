//! After a restart: what the kernel has is compared with what the caller wants.

use std::collections::HashSet;

use types::{ContainerId, Result, error::ResultExt as _};

use crate::{
    Endpoint, Inner, LinkName, Live, Report,
    firewall::{Elements, bridge_elements, port_elements},
    link::Link,
    netns::on_own_thread,
    sandbox::OUTER,
};

impl Inner {
    /// The containers with ports that `live` does not publish just so.
    pub(crate) fn ports_not_in(&self, live: &[Live]) -> Vec<ContainerId> {
        let kept = |id: &ContainerId| {
            live.iter()
                .filter_map(|live| live.published.as_ref())
                .any(|(t, ports)| t.id == *id && self.ports.has(t, ports))
        };
        self.ports
            .owners()
            .into_iter()
            .filter(|id| !kept(id))
            .collect()
    }

    pub(crate) fn reconcile(&self, live: &[Live]) -> Result<Report> {
        let mut report = Report::default();
        self.drop_sandboxes(live, &mut report)?;
        self.drop_links(live, &mut report)?;
        for sandbox in live {
            if self.sandboxes.exists(sandbox.id.as_str()) {
                // One container's broken line must not keep the others from being taken up.
                if let Err(error) = self.mend(sandbox, &mut report) {
                    tracing::warn!("{error}");
                }
            } else {
                report.missing_sandboxes.push(sandbox.id.clone());
            }
        }
        self.take_up_ports(live, &mut report)?;
        Ok(report)
    }

    fn drop_sandboxes(&self, live: &[Live], report: &mut Report) -> Result<()> {
        let wanted: HashSet<_> = live.iter().map(|sandbox| sandbox.id.as_str()).collect();
        for id in self
            .sandboxes
            .list()
            .during(|| "listing network namespaces")?
        {
            if !wanted.contains(id.as_str()) {
                let outer_ends = on_own_thread(|| self.delete_sandbox(&id))?;
                for name in outer_ends.into_iter().flatten() {
                    self.remove_own_link(&name)?;
                }
                report.removed_sandboxes.push(id);
            }
        }
        Ok(())
    }

    /// Removes pairs and bridges of this instance that nobody names.
    fn drop_links(&self, live: &[Live], report: &mut Report) -> Result<()> {
        let name = |sandbox: &Live, endpoint: &Endpoint| {
            self.outer_name(&sandbox.id, &endpoint.ifname).ok()
        };
        let of = |sandbox| move |endpoint| name(sandbox, endpoint);
        let wanted: HashSet<_> = live
            .iter()
            .flat_map(|sandbox| sandbox.endpoints.iter().filter_map(of(sandbox)))
            .collect();
        let is_known = |name: &str| {
            name.parse::<LinkName>()
                .is_ok_and(|name| self.bridges().contains_key(&name))
        };
        let orphan = |link: &Link| match link.kind.as_str() {
            "veth" => link.name.starts_with(OUTER) && !wanted.contains(&link.name),
            "bridge" => !is_known(&link.name),
            "dummy" | "ifb" | "vlan" => !self.is_parent(&link.name),
            _ => false,
        };
        let links = self.links()?;
        let all = links.list().during(|| "listing interfaces")?;
        for link in all
            .iter()
            .filter(|link| link.group == self.instance.group() && orphan(link))
        {
            if links
                .remove(&link.name)
                .during(|| format!("removing interface {}", link.name))?
            {
                report.removed_links.push(link.name.clone());
            }
        }
        Ok(())
    }

    /// Leads pairs back to their bridge, if that was made anew, and makes missing ones.
    fn mend(&self, sandbox: &Live, report: &mut Report) -> Result<()> {
        let links = self.links()?;
        for endpoint in &sandbox.endpoints {
            let during = || {
                format!(
                    "mending {} of container {}",
                    endpoint.ifname,
                    sandbox.id.short()
                )
            };
            if self.known_bridge(&endpoint.bridge)?.macvlan.is_some() {
                if !self.has_inside(&sandbox.id, &endpoint.ifname)? {
                    on_own_thread(|| self.attach(&sandbox.id, endpoint))?;
                    report.mended_endpoints.push(format!(
                        "{} {}",
                        sandbox.id.short(),
                        endpoint.ifname
                    ));
                }
                continue;
            }
            let bridge = links.index(endpoint.bridge.as_str()).during(during)?;
            match links
                .find(
                    &self
                        .outer_name(&sandbox.id, &endpoint.ifname)
                        .during(during)?,
                )
                .during(during)?
            {
                Some(link) if link.master == Some(bridge) => continue,
                Some(link) => {
                    let isolated = !self.known_bridge(&endpoint.bridge)?.icc;
                    links.set_master(link.index, bridge).during(during)?;
                    links.set_port(link.index, true, isolated).during(during)?;
                }
                None => on_own_thread(|| self.attach(&sandbox.id, endpoint))?,
            }
            report
                .mended_endpoints
                .push(format!("{} {}", sandbox.id.short(), endpoint.ifname));
        }
        Ok(())
    }

    fn take_up_ports(&self, live: &[Live], report: &mut Report) -> Result<()> {
        for (target, ports) in live.iter().filter_map(|sandbox| sandbox.published.as_ref()) {
            if !self.ports.has(target, ports) {
                let failed = self.ports.adopt(target, ports, &self.runtime);
                report.failed_ports.extend(
                    failed
                        .into_iter()
                        .map(|(port, why)| (target.id.clone(), port, why)),
                );
            }
        }
        let mut elements: Elements = self
            .bridges()
            .values()
            .filter(|bridge| bridge.macvlan.is_none())
            .flat_map(bridge_elements)
            .collect();
        self.ports
            .each(|target, ports| elements.extend(port_elements(target, ports)));
        self.firewall.replace(elements)
    }

    pub(crate) fn tear_down(&self) -> Result<()> {
        let mut report = Report::default();
        self.drop_sandboxes(&[], &mut report)?;
        self.bridges().clear();
        self.drop_links(&[], &mut report)?;
        self.firewall.remove()
    }
}
