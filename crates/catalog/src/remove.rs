//! `docker rmi` and `docker image prune`: what goes, what stands in the way, in docker's words.
//!
//! What happens is decided by pure functions over an index of the namespace; then one
//! transaction applies it.

use std::collections::HashSet;

use store::Txn;
use types::{ContainerId, Digest, Error, Namespace, Reference, Result, Time, image::chain_ids};

use crate::{
    catalog::{Catalog, Index, image_key, tag_key},
    record::Image,
};

/// A container that uses an image.
#[derive(Debug, Clone)]
pub struct ContainerUse {
    pub id: ContainerId,
    /// Whether processes exist.
    pub running: bool,
}

/// Which containers use an image.
pub type InUse<'a> = &'a (dyn Fn(&Digest) -> Vec<ContainerUse> + Send + Sync);

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

/// What a removal took out of the records.
#[derive(Debug, Clone, Default)]
pub struct Removed {
    pub removals: Vec<Removal>,
    /// Layers of the images that went: nobody may need them any more.
    pub layers: HashSet<Digest>,
}

/// Why an image cannot be deleted.
struct Obstacle {
    /// Force does not help.
    hard: bool,
    /// A container uses it.
    used: bool,
    message: String,
}

impl Obstacle {
    fn error(&self, id: &Digest) -> Error {
        let force = if self.hard {
            "cannot be forced"
        } else {
            "must be forced"
        };
        Error::conflict(format!(
            "conflict: unable to delete {} ({force}) - {}",
            id.short(),
            self.message
        ))
    }
}

/// A removal being planned: the index shrinks as it goes.
struct Plan<'a> {
    index: Index,
    in_use: InUse<'a>,
    removals: Vec<Removal>,
    untagged: Vec<Reference>,
    deleted: Vec<Digest>,
}

impl Plan<'_> {
    fn references(&self, id: &Digest) -> Vec<Reference> {
        self.index
            .references
            .iter()
            .filter(|(_, image)| image == id)
            .map(|(reference, _)| reference.clone())
            .collect()
    }

    fn untag(&mut self, reference: &Reference, id: &Digest) {
        self.index
            .references
            .retain(|(known, _)| known != reference);
        self.untagged.push(reference.clone());
        self.removals.push(Removal::Untagged {
            reference: reference.familiar(),
            image: id.clone(),
        });
    }

    /// What keeps `id` from being deleted. `hard` obstacles always count, `soft` where asked.
    fn obstacle(&self, id: &Digest, soft: bool, references: bool) -> Option<Obstacle> {
        if self
            .index
            .images
            .values()
            .any(|image| image.parent.as_ref() == Some(id))
        {
            return Some(Obstacle {
                hard: true,
                used: false,
                message: "image has dependent child images".into(),
            });
        }
        let users = (self.in_use)(id);
        if let Some(user) = users.iter().find(|user| user.running) {
            let message = format!(
                "image is being used by running container {}",
                user.id.short()
            );
            return Some(Obstacle {
                hard: true,
                used: true,
                message,
            });
        }
        if soft && references && !self.references(id).is_empty() {
            return Some(Obstacle {
                hard: false,
                used: false,
                message: "image is referenced in multiple repositories".into(),
            });
        }
        let user = users.first().filter(|_| soft)?;
        let message = format!(
            "image is being used by stopped container {}",
            user.id.short()
        );
        Some(Obstacle {
            hard: false,
            used: true,
            message,
        })
    }

    fn remove(&mut self, name: &str, force: bool, prune_parents: bool) -> Result<()> {
        let image = self.index.resolve(name)?;
        let references = self.references(&image.id);
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let by_id = !digits.is_empty() && image.id.hex().starts_with(digits);
        let mut quiet = false;
        if by_id {
            // Everything that points at it goes too, when that is all in one repository.
            if is_single(&references) {
                if let Some(obstacle) = self.obstacle(&image.id, !force, false) {
                    return Err(obstacle.error(&image.id));
                }
                for reference in &references {
                    self.untag(reference, &image.id);
                }
            }
        } else {
            self.remove_reference(name, &image, &references, force)?;
            if !self.references(&image.id).is_empty() {
                return Ok(());
            }
            quiet = true;
        }
        self.delete(&image.id, force, prune_parents, quiet)
    }

    fn remove_reference(
        &mut self,
        name: &str,
        image: &Image,
        references: &[Reference],
        force: bool,
    ) -> Result<()> {
        let parsed = name.parse::<Reference>()?.or_latest();
        let parsed = match parsed.digest() {
            Some(digest) => parsed.with_digest(digest.clone()),
            None => parsed,
        };
        if !force
            && is_single(references)
            && let Some(user) = (self.in_use)(&image.id).first()
        {
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                user.id.short(),
                image.id.short()
            )));
        }
        self.untag(&parsed, &image.id);
        // Digests of a repository without any tag are of no use to anybody.
        let rest = self.references(&image.id);
        let same = |reference: &&Reference| reference.name() == parsed.name();
        if parsed.digest().is_none()
            && !rest
                .iter()
                .filter(same)
                .any(|reference| reference.digest().is_none())
        {
            for reference in rest.iter().filter(same) {
                self.untag(reference, &image.id);
            }
        }
        Ok(())
    }

    /// Deletes an image, and where asked the parents that nobody needs then. `quiet`: being
    /// unable to is no failure.
    fn delete(&mut self, id: &Digest, force: bool, prune_parents: bool, quiet: bool) -> Result<()> {
        let mut next = Some((id.clone(), force, quiet));
        while let Some((id, force, quiet)) = next.take() {
            if let Some(obstacle) = self.obstacle(&id, !force, true) {
                if quiet && (obstacle.used || !self.references(&id).is_empty() || obstacle.hard) {
                    return Ok(());
                }
                return Err(obstacle.error(&id));
            }
            for reference in self.references(&id) {
                self.untag(&reference, &id);
            }
            let Some(image) = self.index.images.remove(&id) else {
                return Ok(());
            };
            self.removals.push(Removal::DeletedImage(id.clone()));
            self.deleted.push(id);
            self.report_layers(&image);
            next = image
                .parent
                .clone()
                .filter(|parent| prune_parents && self.index.images.contains_key(parent))
                .map(|parent| (parent, false, true));
        }
        Ok(())
    }

    /// Reports the layers that went with `image`, highest first.
    fn report_layers(&mut self, image: &Image) {
        let kept: HashSet<Digest> = self
            .index
            .images
            .values()
            .flat_map(|image| chain_ids(&image.diff_ids()))
            .collect();
        let gone = chain_ids(&image.diff_ids())
            .into_iter()
            .rev()
            .take_while(|chain| !kept.contains(chain));
        self.removals.extend(gone.map(Removal::DeletedLayer));
    }
}

/// Whether all references together are one name: at most one tag, all in one repository.
fn is_single(references: &[Reference]) -> bool {
    let tags = references
        .iter()
        .filter(|reference| reference.digest().is_none())
        .count();
    let Some(first) = references.first() else {
        return true;
    };
    tags <= 1
        && references
            .iter()
            .all(|reference| reference.name() == first.name())
}

fn has_label(image: &Image, wanted: &str) -> bool {
    let labels = image
        .config
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    match wanted.split_once('=') {
        Some((key, value)) => get(key).is_some_and(|label| label == value),
        None => get(wanted).is_some(),
    }
}

impl PruneFilter {
    fn selects(&self, image: &Image) -> bool {
        let before = |until: Time| image.config.created.is_none_or(|created| created < until);
        self.until.is_none_or(before)
            && self.labels.iter().all(|label| has_label(image, label))
            && !self.labels_not.iter().any(|label| has_label(image, label))
    }
}

impl Catalog {
    /// Removes a reference or an image, as `docker rmi name` (`force`: `-f`; `prune_parents`:
    /// not `--no-prune`, that is parents without tags go too).
    pub async fn remove(
        &self,
        ns: &Namespace,
        name: &str,
        force: bool,
        prune_parents: bool,
        in_use: InUse<'_>,
    ) -> Result<Removed> {
        let mut plan = Plan {
            index: self.index(ns).await?,
            in_use,
            removals: Vec::new(),
            untagged: Vec::new(),
            deleted: Vec::new(),
        };
        plan.remove(name, force, prune_parents)?;
        self.apply(ns, plan).await
    }

    /// Removes images that nobody uses.
    pub async fn prune(
        &self,
        ns: &Namespace,
        filter: &PruneFilter,
        in_use: InUse<'_>,
    ) -> Result<Removed> {
        let mut plan = Plan {
            index: self.index(ns).await?,
            in_use,
            removals: Vec::new(),
            untagged: Vec::new(),
            deleted: Vec::new(),
        };
        // Children before their parents, so that whole chains go.
        loop {
            let chosen = plan.index.images.values().find(|image| {
                let has_tag = plan
                    .references(&image.id)
                    .iter()
                    .any(|reference| reference.digest().is_none());
                !(filter.dangling_only && has_tag)
                    && filter.selects(image)
                    && plan.obstacle(&image.id, true, false).is_none()
            });
            let Some(id) = chosen.map(|image| image.id.clone()) else {
                break;
            };
            plan.delete(&id, true, true, false)?;
        }
        self.apply(ns, plan).await
    }

    /// Carries a plan out.
    async fn apply(&self, ns: &Namespace, plan: Plan<'_>) -> Result<Removed> {
        let mut layers = HashSet::new();
        let mut txn = Txn::new();
        for reference in &plan.untagged {
            txn = txn.delete(tag_key(ns, reference));
        }
        for id in &plan.deleted {
            layers.extend(self.get(ns, id).await?.diff_ids());
            txn = txn.delete(image_key(ns, id));
        }
        if !txn.ops.is_empty() {
            self.store.commit(txn).await?;
        }
        Ok(Removed {
            removals: plan.removals,
            layers,
        })
    }
}
