//! `docker rmi` and `docker image prune`: what goes, what stands in the way, in docker's words.

use types::{ContainerId, Digest, Namespace, Result, Time};

use crate::store::ImageStore;

/// A container that uses an image.
#[derive(Debug, Clone)]
pub struct ContainerUse {
    pub id: ContainerId,
    /// Whether processes exist.
    pub running: bool,
}

/// One step of a removal, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A reference, in familiar form.
    Untagged { reference: String, image: Digest },
    /// An image's record.
    DeletedImage(Digest),
    /// The chain id of a layer that no image needs any more.
    DeletedLayer(Digest),
}

/// What to prune.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Only images without a tag.
    pub dangling_only: bool,
    /// Only images created before.
    pub until: Option<Time>,
    /// `key` or `key=value` that must be there.
    pub labels: Vec<String>,
    /// `key` or `key=value` that must not be there.
    pub labels_not: Vec<String>,
}

/// What a prune took away.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    pub removals: Vec<Removal>,
    /// Bytes of the layers that went.
    pub space_reclaimed: u64,
}

impl ImageStore {
    /// Removes a reference or an image, as `docker rmi name` (`force`: `-f`, `prune_children`:
    /// not `--no-prune`, that is parents without tags go too).
    pub async fn remove(
        &self,
        _ns: &Namespace,
        name: &str,
        _force: bool,
        _prune_parents: bool,
        _in_use: &(dyn Fn(&Digest) -> Vec<ContainerUse> + Send + Sync),
    ) -> Result<Vec<Removal>> {
        Err(types::Error::not_implemented(format!("removing {name}")))
    }

    /// Removes images that nobody uses.
    pub async fn prune(
        &self,
        _ns: &Namespace,
        _filter: &PruneFilter,
        _in_use: &(dyn Fn(&Digest) -> Vec<ContainerUse> + Send + Sync),
    ) -> Result<Pruned> {
        Err(types::Error::not_implemented("pruning images"))
    }
}
