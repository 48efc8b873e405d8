//! The configuration: defaults, then the file, then the command line.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::{
    cli::Place,
    tls::{Files, is_name},
};

const DEFAULT_FILE: &str = "/etc/kraud/kraud.toml";

/// What the file may say. Unknown names are refused: a typo must not go unnoticed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    data_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    /// Group whose members may use the socket.
    group: Option<String>,
    log: Option<String>,
    default_runtime: Option<String>,
    /// Name to path.
    runtimes: BTreeMap<String, PathBuf>,
    /// Path of the init for `--init`.
    init: Option<PathBuf>,
    /// Subnet of the default bridge.
    bridge_subnet: Option<String>,
    /// What subnets of networks are cut from: `base` and `size`, as in docker's daemon.json.
    default_address_pools: Vec<AddressPool>,
    /// Default log options, such as `max-size`.
    log_opts: BTreeMap<String, String>,
    /// `host[:port]` of registries that may be spoken to without TLS.
    insecure_registries: Vec<String>,
    /// Name of the zone that this node is in.
    zone: Option<String>,
    /// `address:port` of the door to the network, or `none`.
    listen: Option<String>,
    /// Names that this kraud is spoken to by, for its certificate.
    names: Vec<String>,
    /// The operator's own certificate chain, its key, and what clients shall trust it by where no
    /// public authority has signed it.
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_authority: Option<PathBuf>,
}

/// Where the API is served over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    None,
    /// Where nobody said otherwise: if it can be.
    Usual(SocketAddr),
    At(SocketAddr),
}

impl Listen {
    /// As docker has it for TLS.
    const PORT: u16 = 2376;

    fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        let usual = || SocketAddr::from(([0, 0, 0, 0], Self::PORT));
        match text {
            None => Ok(Self::Usual(usual())),
            Some("none") => Ok(Self::None),
            Some(text) => text.parse().map(Self::At).with_context(|| {
                format!(
                    "invalid address {text:?} to listen on: want 0.0.0.0:2376, [::]:2376 or none"
                )
            }),
        }
    }
}

/// A range that subnets of networks are cut from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressPool {
    /// `10.201.0.0/16`
    base: String,
    /// Prefix length of the subnets.
    size: u8,
}

impl AddressPool {
    fn check(&self) -> anyhow::Result<network::ipam::PoolRange> {
        let base: ipnet::IpNet = self
            .base
            .parse()
            .with_context(|| format!("default-address-pools: base {:?}", self.base))?;
        if self.size < base.prefix_len() || self.size > base.max_prefix_len() - 2 {
            bail!(
                "default-address-pools: no networks of size {} fit into {}",
                self.size,
                self.base
            );
        }
        Ok(network::ipam::PoolRange {
            base: base.trunc(),
            size: self.size,
        })
    }
}

/// All settings, complete.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) group: String,
    pub(crate) log: String,
    pub(crate) default_runtime: String,
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
    pub(crate) init: Option<PathBuf>,
    pub(crate) bridge_subnet: String,
    pub(crate) address_pools: Vec<network::ipam::PoolRange>,
    pub(crate) log_options: BTreeMap<String, String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) zone: String,
    pub(crate) listen: Listen,
    pub(crate) names: Vec<String>,
    pub(crate) certificate: Option<Files>,
    /// What clients trust, where the certificate is the operator's: empty for what everybody trusts.
    pub(crate) authorities: Option<String>,
}

/// Where OCI runtimes are looked for besides PATH.
const RUNTIME_DIRS: [&str; 5] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/bin",
];

/// The first of `names` that is an executable file.
pub(crate) fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(RUNTIME_DIRS.iter().map(PathBuf::from))
        .collect();
    let is_executable = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    names
        .iter()
        .find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(is_executable))
}

impl Config {
    /// Reads the file and lays the command line over it.
    pub(crate) fn load(place: &Place) -> anyhow::Result<Self> {
        Self::load_for(place, None, None)
    }

    /// The same with what only `serve` is told.
    pub(crate) fn load_for(
        place: &Place,
        log: Option<&str>,
        listen: Option<&str>,
    ) -> anyhow::Result<Self> {
        let file = match &place.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let mut runtimes: BTreeMap<String, PathBuf> =
            ["crun", "runc", "youki", "runsc", "kata-runtime", "krun"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), find_program(&[name])?)))
                .collect();
        runtimes.extend(file.runtimes);
        let default_runtime = file.default_runtime.unwrap_or_else(|| "crun".into());
        let absolute = |path: PathBuf| {
            std::path::absolute(&path)
                .with_context(|| format!("making {} absolute", path.display()))
        };
        let certificate = match (&file.tls_certificate, &file.tls_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Files {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => bail!("tls-certificate and tls-key go together"),
        };
        let authorities = match (&certificate, &file.tls_authority) {
            (None, None) => None,
            (None, Some(_)) => bail!("tls-authority goes with tls-certificate and tls-key"),
            (Some(_), None) => Some(String::new()),
            (Some(_), Some(path)) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("reading tls-authority {}", path.display()))?,
            ),
        };
        if let Some(bad) = file.names.iter().find(|name| !is_name(name)) {
            bail!("names: {bad:?} is no name of a machine");
        }
        Ok(Self {
            data_dir: absolute(
                place
                    .data_dir
                    .clone()
                    .or(file.data_dir)
                    .unwrap_or_else(|| "/var/lib/kraud".into()),
            )?,
            socket: absolute(
                place
                    .socket
                    .clone()
                    .or(file.socket)
                    .unwrap_or_else(|| "/run/kraud/kraud.sock".into()),
            )?,
            group: file.group.unwrap_or_else(|| "kraud".into()),
            log: log
                .map(str::to_owned)
                .or(file.log)
                .unwrap_or_else(|| "info".into()),
            default_runtime,
            runtimes,
            init: file
                .init
                .or_else(|| find_program(&["docker-init", "tini-static", "tini", "catatonit"])),
            bridge_subnet: file.bridge_subnet.unwrap_or_default(),
            address_pools: file
                .default_address_pools
                .iter()
                .map(AddressPool::check)
                .collect::<anyhow::Result<_>>()?,
            log_options: file.log_opts,
            insecure_registries: file.insecure_registries,
            zone: file.zone.unwrap_or_else(|| "default".into()),
            listen: Listen::parse(listen.or(file.listen.as_deref()))?,
            names: file.names,
            certificate,
            authorities,
        })
    }

    /// Fails unless containers can be run at all.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !self.runtimes.contains_key(&self.default_runtime) {
            bail!(
                "the OCI runtime {:?} is not installed (apt-get install {0}), or name another: default-runtime in the configuration",
                self.default_runtime
            );
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the configuration {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_refused() {
        assert!(
            toml::from_str::<File>("data-dir = \"/x\"\n[runtimes]\nrunc = \"/usr/bin/runc\"")
                .is_ok()
        );
        assert!(toml::from_str::<File>("datadir = \"/x\"").is_err());
    }
}
