//! The machine's own resolver: what its resolv.conf says now.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

/// Where systemd-resolved tells the servers behind its stub.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
const STUB: &str = "127.0.0.53";
/// How long what the file said is believed.
const FRESH: Duration = Duration::from_secs(1);

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostResolver {
    /// Name servers, perhaps with a zone (`fe80::1%eth0`).
    pub servers: Vec<String>,
    /// The last list of search domains.
    pub search: Vec<String>,
    /// Options of all lines.
    pub options: Vec<String>,
}

impl HostResolver {
    /// Reads the machine's own: behind systemd's stub, where that is all there is.
    pub fn read() -> Self {
        let usual = Self::read_from(Path::new("/etc/resolv.conf"));
        let behind = Path::new(BEHIND_STUB);
        if usual.servers == [STUB] && behind.exists() {
            return Self::read_from(behind);
        }
        usual
    }

    fn read_from(path: &Path) -> Self {
        Self::parse(&fs::read_to_string(path).unwrap_or_default())
    }

    /// Reads the text of a resolv.conf.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.servers
            .iter()
            .filter_map(|server| server.parse().ok())
            .collect()
    }
}

/// The machine's name servers, as its file said within the last second.
#[derive(Debug, Default)]
pub(super) struct HostServers(Mutex<Option<(Instant, Vec<IpAddr>)>>);

impl HostServers {
    pub(super) async fn now(&self) -> Vec<IpAddr> {
        let mut known = self.0.lock().await;
        if let Some((at, servers)) = &*known
            && at.elapsed() < FRESH
        {
            return servers.clone();
        }
        let read = tokio::task::spawn_blocking(|| HostResolver::read().addresses()).await;
        // The runtime ends, and with it all questions.
        let servers = read.unwrap_or_default();
        *known = Some((Instant::now(), servers.clone()));
        servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_resolvers_read() {
        let text = "# c\nnameserver 10.0.0.2\n nameserver\t::1 \nnameserverx 1.1.1.1\nsearch a\nsearch b c\noptions ndots:2\noptions rotate\nnameserver\n";
        let found = HostResolver::parse(text);
        assert_eq!(found.servers, ["10.0.0.2", "::1"]);
        assert_eq!(found.search, ["b", "c"]);
        assert_eq!(found.options, ["ndots:2", "rotate"]);
    }
}
