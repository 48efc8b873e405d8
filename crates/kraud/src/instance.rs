//! What tells one kraud on a machine from another: everything hangs on the data directory.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use types::Digest;

/// Names of an instance's things in places that all share.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// Eight hexadecimal digits.
    pub(crate) id: String,
    /// For sockets, mounts and state that a reboot empties.
    pub(crate) run_dir: PathBuf,
    /// Interface name of the default bridge.
    pub(crate) bridge: String,
    /// Control group above all containers.
    pub(crate) cgroup: String,
}

impl Instance {
    /// The instance of a data directory, which must exist.
    pub(crate) fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let real = data_dir
            .canonicalize()
            .with_context(|| format!("finding the data directory {}", data_dir.display()))?;
        let digest = Digest::of(real.as_os_str().as_encoded_bytes());
        // All zero would be taken for "none" by the kernel's link groups.
        let id = if digest.hex().starts_with("00000000") {
            "00000001".to_owned()
        } else {
            digest.hex()[..8].to_owned()
        };
        let is_default = real == Path::new("/var/lib/kraud");
        Ok(Self {
            run_dir: PathBuf::from("/run/kraud/instances").join(&id),
            bridge: if is_default {
                "kraud0".into()
            } else {
                format!("kr{id}0")
            },
            cgroup: format!("/kraud-{id}"),
            id,
        })
    }

    /// Where the daemon leaves its process id.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run_dir.join("kraud.pid")
    }
}
