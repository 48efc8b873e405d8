//! Layers and records against a real registry, end to end.

use std::sync::{Arc, Mutex};

use catalog::Catalog;
use types::{
    Digest, Kind, Namespace, Reference,
    image::{LayerRef, NewImage},
};

use super::{
    real::publish_index,
    support::{Log, Registry, bounded, client, request},
};
use crate::{
    LayerGuard, LayerStore,
    registry::{Credentials, Known, Platform, PullKeeper, PullRequest, Pulled},
};

/// Layers and records of one's own, gone at the end.
struct Node {
    layers: Arc<LayerStore>,
    catalog: Catalog,
    ns: Namespace,
    data: tempfile::TempDir,
}

/// Collects what a pull brings.
#[derive(Default)]
struct Keeper {
    guards: Mutex<Vec<LayerGuard>>,
    images: Mutex<Vec<NewImage>>,
}

impl PullKeeper for Keeper {
    fn hold(&self, guards: Vec<LayerGuard>) {
        self.guards.lock().unwrap().extend(guards);
    }
    fn keep(&self, image: NewImage) -> types::Result<()> {
        self.images.lock().unwrap().push(image);
        Ok(())
    }
}

impl Node {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = store::Embedded::open(&data.path().join("store.db")).unwrap();
        Self {
            layers: LayerStore::open(data.path()).unwrap(),
            catalog: Catalog::new(Arc::new(store)),
            ns: "default".parse().unwrap(),
            data,
        }
    }

    async fn pull(&self, request: &PullRequest, log: &Log) -> Digest {
        self.pull_all(request, log).await[0].id.clone()
    }

    async fn pull_all(&self, request: &PullRequest, log: &Log) -> Vec<Pulled> {
        let index = self.catalog.index(&self.ns).await.unwrap();
        let known = Known {
            images: index.images.into_keys().collect(),
            references: index.references,
            allowance: crate::Allowance::all(),
        };
        let keeper = Arc::new(Keeper::default());
        let pulled = client()
            .pull_into(&self.layers, request, known, keeper.clone(), log.report())
            .await
            .unwrap();
        let images = std::mem::take(&mut *keeper.images.lock().unwrap());
        for image in images {
            self.catalog.record(&self.ns, image).await.unwrap();
        }
        pulled
    }

    async fn push(
        &self,
        reference: &Reference,
        all_tags: bool,
        log: &Log,
    ) -> types::Result<Vec<Digest>> {
        let images = self.catalog.to_push(&self.ns, reference, all_tags).await?;
        let pushed = client()
            .push_from(
                &self.layers,
                reference,
                &images,
                &Credentials::default(),
                log.report(),
            )
            .await?;
        let mut digests = Vec::new();
        for image in pushed {
            digests.extend(image.reference.digest().cloned());
            self.catalog.record_push(&self.ns, image).await.unwrap();
        }
        Ok(digests)
    }

    /// Makes an image with one file per layer.
    async fn make(&self, reference: &str, files: &[(&str, &str)]) -> Digest {
        let tars: Vec<Vec<u8>> = files
            .iter()
            .map(|(name, content)| tar(name, content))
            .collect();
        let held: Vec<_> = tars
            .iter()
            .map(|tar| self.layers.ingest(tar.as_slice(), None).unwrap())
            .collect();
        let layers = held.iter().map(|layer| LayerRef {
            diff_id: layer.meta.diff_id.clone(),
            size: layer.meta.size,
        });
        let new = NewImage {
            config: String::from_utf8(super::support::config_of(&tars, "amd64").to_vec()).unwrap(),
            layers: layers.collect(),
            references: vec![reference.parse().unwrap()],
            ..NewImage::default()
        };
        let made = self.catalog.record(&self.ns, new).await.unwrap();
        made.id.clone()
    }
}

/// A tar with one file (POSIX.1-1988 "ustar").
fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content.as_bytes());
    block.resize(block.len().next_multiple_of(512) + 1024, 0);
    block
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_an_index_and_keeps_its_digest_on_push() {
    let registry = Registry::open();
    let reference: Reference = format!("{}/multi:x", registry.host).parse().unwrap();
    let tars = [tar("one", "1"), tar("two", "2"), tar("three", "3")];
    bounded(async {
        let (index, entries) = publish_index(&reference, &tars).await;
        let node = Node::new().await;
        let log = Log::default();
        let wanted = PullRequest {
            platform: Some(Platform::new("linux", "amd64", "")),
            ..request(&reference.to_string())
        };
        let id = node.pull(&wanted, &log).await;

        let image = node
            .catalog
            .resolve(&node.ns, &reference.familiar())
            .await
            .unwrap();
        assert_eq!(image.id, id);
        for (diff_id, name) in image.diff_ids().iter().zip(["one", "two", "three"]) {
            assert!(node.layers.tree(diff_id).join(name).is_file());
        }
        let references = node.catalog.references(&node.ns, &id).await.unwrap();
        assert_eq!(references.tags, std::slice::from_ref(&reference));
        assert_eq!(references.digests, [reference.with_digest(index)]);

        let log = Log::default();
        node.pull(&wanted, &log).await;
        assert_eq!(
            log.lines().last().unwrap(),
            &format!("Status: Image is up to date for {reference}")
        );

        // The layers are mounted and the manifest is sent as it came, zstd and all.
        let copy: Reference = format!("{}/copy:y", registry.host).parse().unwrap();
        node.catalog
            .tag(&node.ns, &reference.familiar(), &copy)
            .await
            .unwrap();
        let log = Log::default();
        assert_eq!(
            node.push(&copy, false, &log).await.unwrap(),
            [entries[0].digest.clone()]
        );
        assert!(log.has(&format!(
            "{}: Mounted from multi",
            image.diff_ids()[1].short()
        )));
        assert!(!log.lines().iter().any(|line| line.ends_with("Pushed")));
        let references = node.catalog.references(&node.ns, &id).await.unwrap();
        assert!(
            references
                .digests
                .contains(&copy.with_digest(entries[0].digest.clone()))
        );

        // A pull of another platform finds the layers there.
        let log = Log::default();
        let other = PullRequest {
            platform: Some(Platform::new("linux", "s390x", "")),
            ..wanted
        };
        assert_ne!(node.pull(&other, &log).await, id);
        assert_eq!(
            log.lines()
                .iter()
                .filter(|line| line.ends_with("Already exists"))
                .count(),
            3
        );
        assert_eq!(
            log.lines().last().unwrap(),
            &format!("Status: Downloaded newer image for {reference}")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn push_then_pull_gives_the_same_id() {
    let registry = Registry::open();
    let name = format!("{}/made:1", registry.host);
    let reference: Reference = name.parse().unwrap();
    bounded(async {
        let (here, there) = (Node::new().await, Node::new().await);
        let id = here
            .make(&name, &[("a", "content of a"), ("b", "content of b")])
            .await;
        let log = Log::default();
        let digests = here.push(&reference, false, &log).await.unwrap();
        assert_eq!(
            log.lines()
                .iter()
                .filter(|line| line.ends_with("Pushed"))
                .count(),
            2
        );

        let mut wanted = request(&name);
        wanted.platform = Some(Platform::new("linux", "amd64", ""));
        assert_eq!(there.pull(&wanted, &Log::default()).await, id);
        let image = there.catalog.get(&there.ns, &id).await.unwrap();
        let file = there.layers.tree(&image.diff_ids()[1]).join("b");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "content of b");
        assert!(there.data.path().join("layers").is_dir());

        // Both now know what the registry has.
        for node in [&here, &there] {
            let log = Log::default();
            assert_eq!(node.push(&reference, false, &log).await.unwrap(), digests);
            assert_eq!(
                log.lines()
                    .iter()
                    .filter(|line| line.ends_with("Layer already exists"))
                    .count(),
                2
            );
        }

        // Who has none of the layers has to fetch them, though they are on the disk.
        let log = Log::default();
        let keeper = Arc::new(Keeper::default());
        client()
            .pull_into(
                &there.layers,
                &wanted,
                Known::default(),
                keeper,
                log.report(),
            )
            .await
            .unwrap();
        let ends = |what: &str| {
            let lines = log.lines();
            lines.iter().filter(|line| line.ends_with(what)).count()
        };
        assert_eq!((ends("Pull complete"), ends("Already exists")), (2, 0));

        // By digest: no tag comes of it.
        let third = Node::new().await;
        let pinned = PullRequest {
            reference: reference.with_digest(digests[0].clone()),
            ..wanted
        };
        third.pull(&pinned, &Log::default()).await;
        let references = third.catalog.references(&third.ns, &id).await.unwrap();
        assert_eq!(
            (references.tags.len(), references.digests),
            (0, vec![pinned.reference.clone()])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_all_tags_or_says_what_is_missing() {
    let registry = Registry::open();
    let repository: Reference = format!("{}/many", registry.host).parse().unwrap();
    bounded(async {
        let node = Node::new().await;
        let log = Log::default();
        let error = node.push(&repository, false, &log).await.unwrap_err();
        assert_eq!(
            error.message,
            format!("An image does not exist locally with the tag: {repository}")
        );
        node.make(&format!("{repository}:1"), &[("a", "1")]).await;
        node.make(&format!("{repository}:2"), &[("a", "2")]).await;
        let error = node.push(&repository, false, &log).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message),
            (
                Kind::NotFound,
                format!("tag does not exist: {repository}:latest")
            )
        );
        assert_eq!(node.push(&repository, true, &log).await.unwrap().len(), 2);
        let all = PullRequest {
            all_tags: true,
            ..request(&repository.to_string())
        };
        let other = Node::new().await;
        let pulled = other.pull_all(&all, &log).await;
        assert_eq!(pulled.len(), 2);
    })
    .await;
}
