//! Images: who may see which, and which are in use. The work itself is [`crate::library`]'s.

use std::{collections::BTreeMap, sync::Arc};

use agent::Reader;
use catalog::{ContainerUse, HistoryRow, Image, PruneFilter, References, Removal};
use types::{Config, Digest, Error, Filters, Kind, Namespace, Reference, Result, image::Platform};

use crate::{
    Engine, Scope,
    library::{Held, LayerPins, LoadReport, Loaded},
    view::{ImageRemoval, ImageUsage},
};

/// What a new container needs to know of its image.
pub(crate) struct RunImage {
    pub(crate) id: Digest,
    pub(crate) layers: Vec<Digest>,
    pub(crate) os: String,
    pub(crate) config: Config,
    /// Keeps the layers where they are until the container's record does.
    pub(crate) held: Held,
}

/// Tells the library which layers containers stand on.
pub(crate) struct Pins(pub(crate) std::sync::Weak<crate::Inner>);

#[async_trait::async_trait]
impl LayerPins for Pins {
    async fn pinned(&self) -> Result<std::collections::HashSet<Digest>> {
        let Some(engine) = self.0.upgrade() else {
            return Err(Error::unavailable("the engine has shut down"));
        };
        let containers = engine.containers.all();
        Ok(containers
            .iter()
            .flat_map(|container| container.record().layers.clone())
            .collect())
    }
}

/// An image with its names.
#[derive(Debug, Clone)]
pub struct ImageView {
    pub image: Arc<Image>,
    pub references: References,
}

impl Engine {
    /// The image that a container shall run, fit for the platform asked for.
    pub(crate) async fn image_for_run(
        &self,
        scope: &Scope,
        name: &str,
        platform: Option<&str>,
    ) -> Result<RunImage> {
        let image = self.catalog.resolve(&scope.namespace, name).await?;
        if let Some(wanted) = self.images.platform(platform).await? {
            let has = image.config.platform();
            if !has.satisfies(&wanted) {
                let show = |p: &Platform| {
                    [p.os.as_str(), &p.architecture, &p.variant]
                        .into_iter()
                        .filter(|part| !part.is_empty())
                        .collect::<Vec<_>>()
                        .join("/")
                };
                return Err(Error::not_found(format!(
                    "image with reference {name} was found but does not provide the specified platform ({}): it is for {}",
                    show(&wanted),
                    show(&has)
                )));
            }
        }
        let layers = image.diff_ids();
        let held = self.images.hold(&layers).await?.ok_or_else(|| {
            Error::system(format!(
                "layers of image {name} are missing on this node: load or pull it again"
            ))
        })?;
        Ok(RunImage {
            held,
            id: image.id.clone(),
            layers,
            os: if image.config.os.is_empty() {
                "linux".into()
            } else {
                image.config.os.clone()
            },
            config: image.config.config.clone().unwrap_or_default(),
        })
    }

    pub(crate) async fn image_size(&self, namespace: &Namespace, id: &Digest) -> u64 {
        self.catalog
            .get(namespace, id)
            .await
            .map_or(0, |image| image.size())
    }

    /// Ids of the image that `name` means and of all images that build on it.
    pub(crate) async fn images_named(&self, scope: &Scope, name: &str) -> Vec<Digest> {
        let Ok(ancestor) = self.catalog.resolve(&scope.namespace, name).await else {
            return Vec::new();
        };
        let all = self
            .catalog
            .list(&scope.namespace)
            .await
            .unwrap_or_default();
        let mut found = vec![ancestor.id.clone()];
        found.extend(
            all.into_iter()
                .map(|(image, _)| image)
                .filter(|image| {
                    image.id != ancestor.id
                        && !ancestor.layers.is_empty()
                        && image.layers.starts_with(&ancestor.layers)
                })
                .map(|image| image.id.clone()),
        );
        found
    }

    /// Containers that use an image, for removals.
    fn image_users(
        &self,
        namespace: Namespace,
    ) -> impl Fn(&Digest) -> Vec<ContainerUse> + Send + Sync + '_ {
        move |image| {
            self.containers
                .of(&namespace)
                .iter()
                .filter(|container| container.record().image == *image)
                .map(|container| ContainerUse {
                    id: container.id.clone(),
                    running: container.is_running(),
                })
                .collect()
        }
    }

    pub(crate) fn image_event(
        &self,
        namespace: &Namespace,
        action: &str,
        id: &str,
        name: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) {
        let mut attributes = labels.cloned().unwrap_or_default();
        attributes.insert("name".into(), name.into());
        self.events
            .publish(namespace, "image", action, id, attributes);
    }

    /// An image with its names.
    pub async fn image_inspect(&self, scope: &Scope, name: &str) -> Result<ImageView> {
        let image = self.catalog.resolve(&scope.namespace, name).await?;
        let references = self.catalog.references(&scope.namespace, &image.id).await?;
        Ok(ImageView { image, references })
    }

    /// Images of the namespace that pass docker's filters, newest first.
    pub async fn image_list(
        &self,
        scope: &Scope,
        all: bool,
        filters: &Filters,
    ) -> Result<Vec<ImageView>> {
        filters.only(&["before", "dangling", "label", "reference", "since", "until"])?;
        let dangling = filters.boolean("dangling")?;
        let created = |image: &Image| image.config.created.unwrap_or_default();
        let mut bounds = [None, None];
        for (name, bound) in ["before", "since"].into_iter().zip(&mut bounds) {
            if let Some(other) = filters.values(name).last() {
                *bound = Some(created(
                    &*self.catalog.resolve(&scope.namespace, other).await?,
                ));
            }
        }
        let [before, since] = bounds;
        let until = crate::system::until(filters)?;
        let images = self.catalog.list(&scope.namespace).await?;
        let parents: std::collections::HashSet<Digest> = images
            .iter()
            .filter_map(|(image, _)| image.parent.clone())
            .collect();
        let mut views = Vec::new();
        for (image, mut references) in images {
            let labels = image
                .config
                .config
                .as_ref()
                .and_then(|config| config.labels.as_ref());
            let at = created(&image);
            let is_dangling = references.tags.is_empty() && references.digests.is_empty();
            let passes = before.is_none_or(|time| at < time)
                && since.is_none_or(|time| at > time)
                && until.is_none_or(|time| at < time)
                && filters.labels("label", |name| {
                    labels
                        .and_then(|labels| labels.get(name))
                        .map(String::as_str)
                })
                && dangling.is_none_or(|wanted| wanted == references.tags.is_empty());
            // Steps on the way to another image are shown only on request.
            let is_step = is_dangling && parents.contains(&image.id) && !all;
            if !passes || is_step {
                continue;
            }
            if filters.has("reference") {
                let matches = |reference: &Reference| {
                    filters.any("reference", |pattern| reference_matches(pattern, reference))
                };
                references.tags.retain(matches);
                references.digests.retain(matches);
                if references.tags.is_empty() && references.digests.is_empty() {
                    continue;
                }
            }
            views.push(ImageView { image, references });
        }
        Ok(views)
    }

    /// How many containers use each image of the namespace.
    pub fn image_use_counts(&self, scope: &Scope) -> BTreeMap<Digest, usize> {
        let mut counts = BTreeMap::new();
        for container in self.containers.of(&scope.namespace) {
            *counts.entry(container.record().image.clone()).or_default() += 1;
        }
        counts
    }

    /// Disk use of each image (for `shared-size`).
    pub async fn image_usage(&self, scope: &Scope) -> Result<Vec<ImageUsage>> {
        Ok(self.disk_usage(scope).await?.images)
    }

    /// `docker history`.
    pub async fn image_history(&self, scope: &Scope, name: &str) -> Result<Vec<HistoryRow>> {
        self.catalog.history(&scope.namespace, name).await
    }

    /// `docker tag`.
    pub async fn image_tag(&self, scope: &Scope, name: &str, reference: &Reference) -> Result<()> {
        let image = self.catalog.tag(&scope.namespace, name, reference).await?;
        self.image_event(
            &scope.namespace,
            "tag",
            image.id.as_str(),
            &reference.clone().or_latest().familiar(),
            None,
        );
        Ok(())
    }

    /// `docker rmi`.
    pub async fn image_remove(
        &self,
        scope: &Scope,
        name: &str,
        force: bool,
        prune: bool,
    ) -> Result<Vec<ImageRemoval>> {
        let users = self.image_users(scope.namespace.clone());
        let removals = self
            .images
            .remove(&scope.namespace, name, force, prune, &users)
            .await?;
        Ok(self.removed(scope, removals))
    }

    /// `docker image prune`.
    pub async fn image_prune(
        &self,
        scope: &Scope,
        filters: &Filters,
    ) -> Result<(Vec<ImageRemoval>, u64)> {
        filters.only(&["dangling", "label", "label!", "until"])?;
        let filter = PruneFilter {
            dangling_only: filters.boolean("dangling")?.unwrap_or(true),
            until: crate::system::until(filters)?,
            labels: filters.values("label").to_vec(),
            labels_not: filters.values("label!").to_vec(),
        };
        let users = self.image_users(scope.namespace.clone());
        let (removals, freed) = self.images.prune(&scope.namespace, &filter, &users).await?;
        self.prune_event(scope, "image", freed);
        Ok((self.removed(scope, removals), freed))
    }

    fn removed(&self, scope: &Scope, removals: Vec<Removal>) -> Vec<ImageRemoval> {
        removals
            .into_iter()
            .map(|removal| match removal {
                Removal::Untagged { reference, image } => {
                    self.image_event(&scope.namespace, "untag", image.as_str(), &reference, None);
                    ImageRemoval::Untagged(reference)
                }
                Removal::DeletedImage(image) => {
                    self.image_event(
                        &scope.namespace,
                        "delete",
                        image.as_str(),
                        image.as_str(),
                        None,
                    );
                    ImageRemoval::Deleted(image)
                }
                Removal::DeletedLayer(chain) => ImageRemoval::Deleted(chain),
            })
            .collect()
    }

    /// `docker load`: what was loaded, in order. `report` hears how far it is.
    pub async fn image_load(
        &self,
        scope: &Scope,
        archive: Reader,
        platform: Option<&str>,
        report: LoadReport,
    ) -> Result<Vec<Loaded>> {
        let platform = self.images.platform(platform).await?;
        let loaded = self
            .images
            .load(&scope.namespace, archive, platform, report)
            .await?;
        for one in &loaded {
            let name = one
                .references
                .first()
                .map_or_else(|| one.id.to_string(), Reference::familiar);
            self.image_event(&scope.namespace, "load", one.id.as_str(), &name, None);
        }
        Ok(loaded)
    }

    /// Fails, before anything is sent, when one of `names` is no image; used ahead of [`Engine::image_save`].
    pub async fn images_must_exist(&self, scope: &Scope, names: &[String]) -> Result<()> {
        for name in names {
            // A repository without a tag means all its tags.
            if let Err(error) = self.catalog.resolve(&scope.namespace, name).await {
                let all = self.catalog.list(&scope.namespace).await?;
                let is_repository = |(_, references): &(Arc<Image>, References)| {
                    references
                        .tags
                        .iter()
                        .any(|tag| tag.familiar_name() == *name)
                };
                if error.kind != Kind::NotFound || !all.iter().any(is_repository) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// `docker save`: the archive, which ends with an error when it is not whole.
    pub async fn image_save(&self, scope: &Scope, names: &[String]) -> Result<Reader> {
        let archive = self.images.save(&scope.namespace, names).await?;
        for name in names {
            if let Ok(image) = self.catalog.resolve(&scope.namespace, name).await {
                self.image_event(&scope.namespace, "save", image.id.as_str(), name, None);
            }
        }
        Ok(archive)
    }

    /// `docker import`: an image of one layer from a tar. `changes` are Dockerfile instructions.
    pub async fn image_import(
        &self,
        scope: &Scope,
        tar: Reader,
        reference: Option<&Reference>,
        message: &str,
        changes: &[String],
        platform: Option<&str>,
    ) -> Result<Digest> {
        let mut config = Config::default();
        crate::changes::apply(&mut config, changes)?;
        let platform = self.images.platform(platform).await?;
        let image = self
            .images
            .import(&scope.namespace, tar, reference, message, config, platform)
            .await?;
        let name = reference.map_or_else(
            || image.id.to_string(),
            |reference| reference.clone().or_latest().familiar(),
        );
        self.image_event(&scope.namespace, "import", image.id.as_str(), &name, None);
        Ok(image.id.clone())
    }
}

/// Go's `path.Match` on a familiar name, with or without its tag.
fn reference_matches(pattern: &str, reference: &Reference) -> bool {
    let (name, full) = (reference.familiar_name(), reference.familiar());
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), full.as_bytes())
}

/// `*` and `?` match within one path component, `[a-z]` one of a set.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => {
            let reach = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=reach).any(|skip| glob(rest, &text[skip..]))
        }
        [b'?', rest @ ..] => {
            matches!(text, [first, others @ ..] if *first != b'/' && glob(rest, others))
        }
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|b| *b == b']') else {
                return false;
            };
            let [first, others @ ..] = text else {
                return false;
            };
            in_set(&rest[..end], *first) && glob(&rest[end + 1..], others)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            matches!(text, [first, others @ ..] if first == literal && glob(rest, others))
        }
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        set => (false, set),
    };
    let mut found = false;
    while let [first, rest @ ..] = set {
        if let [b'-', last, others @ ..] = rest {
            found |= (*first..=*last).contains(&byte);
            set = others;
        } else {
            found |= *first == byte;
            set = rest;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns() {
        let reference: Reference = "busybox:1.36".parse().unwrap();
        for good in ["busybox", "busy*", "busybox:*", "b?sybox:1.[0-9]*", "*"] {
            assert!(reference_matches(good, &reference), "{good}");
        }
        for bad in ["busy", "*/busybox", "busybox:2*", "[a", ""] {
            assert!(!reference_matches(bad, &reference), "{bad}");
        }
        assert!(!reference_matches("*", &"example.com/a".parse().unwrap()));
    }
}
