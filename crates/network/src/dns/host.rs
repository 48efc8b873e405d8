//! The machine's own resolver: what its resolv.conf says now.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Where systemd-resolved tells the servers behind its stub.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
const STUB: &str = "127.0.0.53";

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
        Self::read_from(&path())
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

fn path() -> PathBuf {
    let usual = PathBuf::from("/etc/resolv.conf");
    let only_stub = HostResolver::read_from(&usual).servers == [STUB];
    if only_stub && Path::new(BEHIND_STUB).exists() {
        return BEHIND_STUB.into();
    }
    usual
}

/// When a file was what: differs after any change.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The machine's name servers, read again when their file has changed.
#[derive(Debug, Default)]
pub(super) struct HostServers(Mutex<(Stamp, Vec<IpAddr>)>);

impl HostServers {
    pub(super) fn now(&self) -> Vec<IpAddr> {
        let path = path();
        let stamp = fs::metadata(&path)
            .ok()
            .map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != stamp || stamp.is_none() {
            *known = (stamp, HostResolver::read_from(&path).addresses());
        }
        known.1.clone()
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
