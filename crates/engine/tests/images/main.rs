//! The library over a node's layers: load, save, tags, removal, history, usage, import.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

#[path = "../../../image/tests/common/mod.rs"]
mod common;
mod harness;

use std::{collections::HashSet, io::Write as _, process::Command, sync::Arc};

use agent::{NodeImages as _, local::images::LocalImages};
use catalog::{ContainerUse, PruneFilter, Removal};
use common::{Tar, config};
use engine::library::{LayerPins, Library};
use harness::{Images, images};
use serde_json::{Value, json};
use types::{
    Config, ContainerId, Digest, Kind, Namespace,
    image::{NewImage, Platform},
};

fn base() -> Vec<u8> {
    Tar::default().file("base", &[b'b'; 1000]).end()
}
fn app() -> Vec<u8> {
    Tar::default().file("app", &[b'a'; 300]).end()
}
fn nobody(_: &Digest) -> Vec<ContainerUse> {
    Vec::new()
}

/// A docker archive as docker before 25 wrote it.
fn legacy_archive(layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = config(&ids, "legacy");
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let mut tar = Tar::default().file(&config_name, config.as_bytes());
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        tar = tar
            .dir(&format!("{index}/"))
            .file(&format!("{index}/VERSION"), b"1.0")
            .file(&format!("{index}/json"), b"{}");
        // A layer that was there before is a link to it.
        match layers[..index].iter().position(|before| before == layer) {
            Some(before) => {
                tar = tar.symlink(
                    &format!("{index}/layer.tar"),
                    &format!("../{before}/layer.tar"),
                )
            }
            None => tar = tar.file(&format!("{index}/layer.tar"), layer),
        }
        names.push(format!("{index}/layer.tar"));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    tar.file("manifest.json", manifest.to_string().as_bytes())
        .file("repositories", b"{}")
        .end()
}

/// An OCI layout with compressed layers, and manifests for other platforms.
fn oci_archive(layers: &[Vec<u8>], zstd: bool) -> Vec<u8> {
    let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = config(&ids, "oci");
    let mut blobs: Vec<Vec<u8>> = vec![config.clone().into_bytes()];
    let mut entry = |kind: &str, blob: Vec<u8>| {
        let entry = json!({"mediaType": kind, "digest": Digest::of(&blob), "size": blob.len()});
        blobs.push(blob);
        entry
    };
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|layer| {
            if zstd {
                entry(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    zstd::encode_all(&layer[..], 1).unwrap(),
                )
            } else {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(layer).unwrap();
                entry(
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    gzip.finish().unwrap(),
                )
            }
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": descriptors});
    let mut mine = entry(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().into_bytes(),
    );
    let host = Platform::host();
    mine["platform"] = json!({"os": host.os, "architecture": host.architecture});
    let mut other = mine.clone();
    other["digest"] = json!(Digest::of(b"not in the archive"));
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let mut attestation = entry("application/vnd.oci.image.manifest.v1+json", b"{}".to_vec());
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let inner = json!({"schemaVersion": 2, "manifests": [other, mine, attestation]});
    let mut top = entry(
        "application/vnd.oci.image.index.v1+json",
        inner.to_string().into_bytes(),
    );
    top["annotations"] = json!({"io.containerd.image.name": "docker.io/library/oci:1"});
    let mut tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar = tar.file(
        "index.json",
        json!({"schemaVersion": 2, "manifests": [top]})
            .to_string()
            .as_bytes(),
    );
    for blob in &blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.end()
}

#[tokio::test]
async fn loads_docker_archives() {
    let images = images().await;
    let archive = legacy_archive(
        &[base(), app(), base()],
        &["busybox:1", "example.com/x/y:2"],
    );
    let loaded = images.load(&archive).await.unwrap();
    assert_eq!(loaded.len(), 1);
    let image = images
        .catalog
        .resolve(&images.ns, "busybox:1")
        .await
        .unwrap();
    assert_eq!(image.id, loaded[0].id);
    assert_eq!(image.id, Digest::of(image.raw_config.as_bytes()));
    assert_eq!(
        image.diff_ids(),
        [Digest::of(&base()), Digest::of(&app()), Digest::of(&base())]
    );
    assert_eq!(image.size(), 2300);
    let tags: Vec<String> = images
        .catalog
        .references(&images.ns, &image.id)
        .await
        .unwrap()
        .tags
        .iter()
        .map(types::Reference::familiar)
        .collect();
    assert_eq!(tags, ["busybox:1", "example.com/x/y:2"]);
    // Again, compressed: the same.
    let again = images
        .load(&zstd::encode_all(&archive[..], 1).unwrap())
        .await
        .unwrap();
    assert_eq!(again, loaded);
    assert_eq!(images.left().len(), 2);
}

#[tokio::test]
async fn loads_oci_layouts() {
    for zstd in [false, true] {
        let images = images().await;
        let loaded = images
            .load(&oci_archive(&[base(), app()], zstd))
            .await
            .unwrap();
        assert_eq!(loaded[0].references[0].familiar(), "oci:1");
        let image = images.catalog.get(&images.ns, &loaded[0].id).await.unwrap();
        let source = image.source.as_ref().unwrap();
        assert_eq!(source.layers.len(), 2);
        assert!(source.manifest.contains(source.layers[0].digest.as_str()));
        let archive = oci_archive(&[base(), app()], zstd);
        let riscv = Platform::parse("linux/riscv64", &Platform::host()).unwrap();
        let wrong = images.load_for(&archive, Some(riscv));
        assert_eq!(wrong.await.unwrap_err().kind, Kind::NotFound);
    }
}

#[tokio::test]
async fn saves_what_it_loaded() {
    let one = images().await;
    one.image(&[&base(), &app()], "one", &["one:1", "one:2"], None)
        .await;
    one.image(&[&base()], "two", &["two:latest"], None).await;
    let archive = one.save(&["one", "two"]).await;
    assert_eq!(
        archive,
        one.save(&["one", "two"]).await,
        "saving is deterministic"
    );
    // The shared layer is there once.
    let needle = [b'b'; 1000];
    assert_eq!(
        archive
            .windows(1000)
            .filter(|window| *window == needle)
            .count(),
        1
    );
    let two = images().await;
    let loaded = two.load(&archive).await.unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(archive, two.save(&["one:1", "one:2", "two:latest"]).await);
    // Without manifest.json it is an OCI layout of the same images.
    let three = images().await;
    let dir = tempfile::tempdir().unwrap();
    let (file, tree) = (dir.path().join("a.tar"), dir.path().join("tree"));
    std::fs::write(&file, &archive).unwrap();
    std::fs::create_dir(&tree).unwrap();
    common::run(
        Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(&tree),
    );
    std::fs::remove_file(tree.join("manifest.json")).unwrap();
    common::run(
        Command::new("tar")
            .arg("-cf")
            .arg(&file)
            .arg("-C")
            .arg(&tree)
            .arg("."),
    );
    let mut again = three.load(&std::fs::read(&file).unwrap()).await.unwrap();
    again.sort_by(|a, b| a.id.cmp(&b.id));
    let mut loaded = loaded;
    loaded.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(again, loaded);
    // An id saves the bare image.
    let id = one
        .catalog
        .resolve(&one.ns, "two")
        .await
        .unwrap()
        .id
        .clone();
    let bare = images()
        .await
        .load(&one.save(&[id.short()]).await)
        .await
        .unwrap();
    assert_eq!((bare[0].id.clone(), bare[0].references.len()), (id, 0));
}

async fn refused(images: &Images, archive: &[u8]) -> String {
    let before = images.left();
    let error = images
        .load(archive)
        .await
        .expect_err("this archive must be refused");
    assert_eq!(images.left(), before, "{error}");
    error.message
}

#[tokio::test]
async fn bad_archives_leave_nothing() {
    let images = images().await;
    let good = legacy_archive(&[base(), app()], &["a:1"]);
    for cut in (1..good.len() - 1024).step_by(397) {
        refused(&images, &good[..cut]).await;
    }
    refused(&images, b"").await;
    refused(&images, b"no archive at all").await;
    refused(&images, &Tar::default().file("x", b"y").end()).await;
    let manifest =
        |manifest: Value| Tar::default().file("manifest.json", manifest.to_string().as_bytes());
    refused(&images, &manifest(json!({})).end()).await;
    refused(
        &images,
        &manifest(json!([{"Config": "missing", "Layers": []}])).end(),
    )
    .await;
    let text = config(&[Digest::of(&base())], "x");
    let with = |layers: &[&str]| {
        manifest(json!([{"Config": "c", "RepoTags": ["a:1"], "Layers": layers}]))
            .file("c", text.as_bytes())
    };
    assert!(
        refused(&images, &with(&[]).end())
            .await
            .contains("length mismatch")
    );
    assert!(
        refused(&images, &with(&["l"]).end())
            .await
            .contains("missing")
    );
    assert!(
        refused(&images, &with(&["l"]).file("l", &app()).end())
            .await
            .contains("invalid diffID")
    );
    assert!(
        refused(
            &images,
            &with(&["l"])
                .file("l", &Tar::default().file("../x", b"").end())
                .end()
        )
        .await
        .contains("outside")
    );
    assert!(
        refused(&images, &with(&["l"]).symlink("l", "l").end())
            .await
            .contains("missing")
    );
    refused(
        &images,
        &with(&["l"]).symlink("l", "../../../etc/passwd").end(),
    )
    .await;
    refused(&images, &with(&["l"]).file("l", b"text").end()).await;
    assert!(
        refused(
            &images,
            &manifest(json!([{"Config": "c", "Layers": []}]))
                .file("c", b"{}")
                .end()
        )
        .await
        .contains("RootFS")
    );
    // A blob that is not what its name says.
    let wrong = format!("blobs/sha256/{}", Digest::of(b"something").hex());
    refused(&images, &Tar::default().file(&wrong, b"else").end()).await;
    refused(&images, &with(&[&wrong]).file(&wrong, &base()).end()).await;
    let mut damaged = oci_archive(&[base(), app()], true);
    let at = damaged
        .windows(4)
        .position(|window| window == [0x28, 0xb5, 0x2f, 0xfd])
        .unwrap()
        + 20;
    damaged[at] ^= 0xff;
    refused(&images, &damaged).await;
    assert!(images.catalog.list(&images.ns).await.unwrap().is_empty());
    // What nothing refers to does not stay even when all is well.
    images
        .load(&with(&["l"]).file("l", &base()).file("unused", &app()).end())
        .await
        .unwrap();
    assert_eq!(images.left(), [Digest::of(&base()).hex()]);
}

#[tokio::test]
async fn names_resolve_as_docker_does() {
    let images = images().await;
    let id = images
        .image(&[&base()], "x", &["busybox:latest"], None)
        .await;
    let digest = Digest::of(b"manifest");
    let pinned = format!("busybox@{digest}");
    let new = NewImage {
        config: config(&[Digest::of(&base())], "x"),
        references: vec![pinned.parse().unwrap()],
        ..NewImage::default()
    };
    images.record(&images.ns, new).await;
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        id.as_str(),
        id.hex(),
        id.short(),
        &id.hex()[..3],
        pinned.as_str(),
        &format!("busybox:other@{digest}"),
    ] {
        assert_eq!(
            images.catalog.resolve(&images.ns, name).await.unwrap().id,
            id,
            "{name}"
        );
    }
    for (name, shown) in [
        ("nope", "nope:latest"),
        ("nope:1", "nope:1"),
        ("busybox:2", "busybox:2"),
        ("ffffffffffff", "ffffffffffff:latest"),
    ] {
        let error = images.catalog.resolve(&images.ns, name).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message),
            (Kind::NotFound, format!("No such image: {shown}"))
        );
    }
    assert_eq!(
        images
            .catalog
            .resolve(&images.ns, "Bad")
            .await
            .unwrap_err()
            .kind,
        Kind::InvalidParameter
    );
    let other: Namespace = "other".parse().unwrap();
    assert!(images.catalog.resolve(&other, "busybox").await.is_err());
    images
        .catalog
        .tag(&images.ns, "busybox", &"new/name".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        images
            .catalog
            .resolve(&images.ns, "new/name:latest")
            .await
            .unwrap()
            .id,
        id
    );
    assert!(
        images
            .catalog
            .tag(&images.ns, "busybox", &pinned.parse().unwrap())
            .await
            .is_err()
    );
}

fn text(removals: &[Removal]) -> Vec<String> {
    removals
        .iter()
        .map(|removal| match removal {
            Removal::Untagged { reference, .. } => format!("untagged {reference}"),
            Removal::DeletedImage(_) => "image".into(),
            Removal::DeletedLayer(_) => "layer".into(),
        })
        .collect()
}

#[tokio::test]
async fn removal_follows_docker() {
    let images = images().await;
    let ns = &images.ns;
    let id = images
        .image(&[&base(), &app()], "x", &["a:1", "b:1"], None)
        .await;
    images.image(&[&base()], "y", &["base:1"], None).await;
    let remove = async |name: &str, force: bool, user: Option<bool>| {
        let user = user.map(|running| ContainerUse {
            id: "ab".repeat(32).parse::<ContainerId>().unwrap(),
            running,
        });
        images
            .library
            .remove(ns, name, force, true, &move |_| {
                user.clone().into_iter().collect()
            })
            .await
            .map(|steps| text(&steps))
    };
    let short = id.short();
    // Two repositories: not by id without force.
    assert_eq!(
        remove(short, false, None).await.unwrap_err().message,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(
        remove("a:1", false, Some(true)).await.unwrap(),
        ["untagged a:1"]
    );
    assert_eq!(
        remove("b:1", false, Some(false)).await.unwrap_err().message,
        format!(
            "conflict: unable to remove repository reference \"b:1\" (must force) - container abababababab is using its referenced image {short}"
        )
    );
    assert_eq!(
        remove(short, false, Some(false)).await.unwrap_err().message,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container abababababab"
        )
    );
    assert_eq!(
        remove(short, true, Some(true)).await.unwrap_err().message,
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container abababababab"
        )
    );
    // Forced while a container runs: the name goes, the image stays.
    assert_eq!(
        remove("b:1", true, Some(true)).await.unwrap(),
        ["untagged b:1"]
    );
    let child = images
        .image(&[&base(), &app(), &base()], "child", &[], Some(id.clone()))
        .await;
    assert_eq!(
        remove(short, true, None).await.unwrap_err().message,
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image has dependent child images"
        )
    );
    // The child takes its nameless parent along; the base's layer stays with the base.
    assert_eq!(
        remove(child.as_str(), false, None).await.unwrap(),
        ["image", "layer", "image", "layer"]
    );
    assert_eq!(images.left(), [Digest::of(&base()).hex()]);
    assert_eq!(
        remove("base:1", false, None).await.unwrap(),
        ["untagged base:1", "image", "layer"]
    );
    assert!(images.left().is_empty());
    assert_eq!(
        remove("base:1", false, None).await.unwrap_err().kind,
        Kind::NotFound
    );
}

struct Held(Digest);

#[async_trait::async_trait]
impl LayerPins for Held {
    async fn pinned(&self) -> types::Result<HashSet<Digest>> {
        Ok(HashSet::from([self.0.clone()]))
    }
}

#[tokio::test]
async fn layers_stay_while_anybody_needs_them() {
    let images = images().await;
    let tars: Vec<Vec<u8>> = ["pinned", "held", "other", "free"]
        .iter()
        .map(|name| Tar::default().file(name, b"x").end())
        .collect();
    let ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let all: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    images.image(&all, "mine", &["mine:1"], None).await;
    let other: Namespace = "other".parse().unwrap();
    let new = NewImage {
        config: config(&[ids[2].clone()], "theirs"),
        ..NewImage::default()
    };
    images.record(&other, new).await;
    images.library.set_pins(Arc::new(Held(ids[0].clone())));
    let guard = images.node.layers().pin(&ids[1]).unwrap();
    images
        .library
        .remove(&images.ns, "mine:1", false, true, &nobody)
        .await
        .unwrap();
    let mut kept: Vec<String> = ids[..3].iter().map(|id| id.hex().to_owned()).collect();
    kept.sort();
    assert_eq!(images.left(), kept);
    drop(guard);
    assert_eq!(images.library.collect_garbage().await.unwrap(), 1);
    assert_eq!(images.left().len(), 2);
    // A new start without the records of a crashed load.
    let node = LocalImages::open(images.dir.path(), &[]).await.unwrap();
    let again = Library::new(images.catalog.clone(), Arc::new(node));
    again.collect_garbage().await.unwrap();
    assert_eq!(images.left(), [ids[2].hex()]);
}

#[tokio::test]
async fn prune_and_usage_are_true() {
    let images = images().await;
    let ns = &images.ns;
    let tagged = images
        .image(&[&base(), &app()], "one", &["one:1"], None)
        .await;
    images.image(&[&base()], "dangling", &[], None).await;
    let usage = images.catalog.disk_usage(ns).await.unwrap();
    assert_eq!(usage.layers_size, 1300);
    let of = |id: &Digest| {
        usage
            .images
            .iter()
            .find(|usage| usage.image.id == *id)
            .map(|usage| (usage.size, usage.shared_size, usage.unique_size()))
    };
    assert_eq!(of(&tagged), Some((1300, 1000, 300)));
    let dangling = PruneFilter {
        dangling_only: true,
        ..PruneFilter::default()
    };
    let labelled = PruneFilter {
        labels_not: vec!["extra".into()],
        ..dangling.clone()
    };
    assert!(
        images
            .library
            .prune(ns, &labelled, &nobody)
            .await
            .unwrap()
            .0
            .is_empty()
    );
    let pruned = images.library.prune(ns, &dangling, &nobody).await.unwrap();
    assert_eq!((text(&pruned.0), pruned.1), (vec!["image".to_owned()], 0));
    let used = |_: &Digest| {
        vec![ContainerUse {
            id: ContainerId::random(),
            running: false,
        }]
    };
    assert!(
        images
            .library
            .prune(ns, &PruneFilter::default(), &used)
            .await
            .unwrap()
            .0
            .is_empty()
    );
    let old = PruneFilter {
        until: types::Time::parse("2020-01-01T00:00:00Z"),
        ..PruneFilter::default()
    };
    assert!(
        images
            .library
            .prune(ns, &old, &nobody)
            .await
            .unwrap()
            .0
            .is_empty()
    );
    let pruned = images
        .library
        .prune(ns, &PruneFilter::default(), &nobody)
        .await
        .unwrap();
    assert_eq!((text(&pruned.0).len(), pruned.1), (4, 1300));
    assert!(images.left().is_empty());
}

#[tokio::test]
async fn imports_a_root_file_system() {
    let images = images().await;
    let tar = Box::pin(std::io::Cursor::new(
        zstd::encode_all(&base()[..], 1).unwrap(),
    ));
    let image = images
        .library
        .import(
            &images.ns,
            tar,
            Some(&"imp".parse().unwrap()),
            "Imported from -",
            Config::default(),
            None,
        )
        .await
        .unwrap();
    assert_eq!(image.config.comment, "Imported from -");
    assert_eq!(image.diff_ids(), [Digest::of(&base())]);
    let history = images.catalog.history(&images.ns, "imp").await.unwrap();
    assert_eq!(
        (history.len(), history[0].size, history[0].tags.clone()),
        (1, 1000, vec!["imp:latest".to_owned()])
    );
    let bad = Box::pin(std::io::Cursor::new(Tar::default().file("../x", b"").end()));
    assert!(
        images
            .library
            .import(&images.ns, bad, None, "", Config::default(), None)
            .await
            .is_err()
    );
    assert_eq!(images.left().len(), 1);
}

#[tokio::test]
async fn history_names_ancestors() {
    let images = images().await;
    let parent = images.image(&[&base()], "parent", &["p:1"], None).await;
    let child = images
        .image(&[&base(), &app()], "child", &["c:1"], Some(parent.clone()))
        .await;
    let rows = images.catalog.history(&images.ns, "c:1").await.unwrap();
    assert_eq!(
        rows.iter()
            .map(|row| (row.id.clone(), row.size))
            .collect::<Vec<_>>(),
        [(Some(child), 300), (Some(parent), 1000)]
    );
    assert_eq!(rows[1].tags, ["p:1"]);
}

#[tokio::test]
async fn a_sweep_spares_what_was_held_since_it_began() {
    let images = images().await;
    let tar = base();
    let layer = Digest::of(&tar);
    let import = async || {
        let tar = Box::pin(std::io::Cursor::new(tar.clone()));
        images.node.layer_import(tar).await.unwrap()
    };
    let made = import().await;
    assert!(made.fresh && !import().await.fresh);
    // Held when it begins, and released before it removes: somebody may have recorded it.
    let sweep = images.node.sweep_begin().await.unwrap();
    images.node.layers_release(&made.hold).await.unwrap();
    let unneeded = [layer.clone()];
    assert_eq!(images.node.sweep(&sweep, &unneeded).await.unwrap(), 0);
    assert_eq!(images.node.layers_list().await.unwrap(), unneeded);
    // The second import's hold is still there.
    let again = images.node.sweep_begin().await.unwrap();
    assert_eq!(images.node.sweep(&again, &unneeded).await.unwrap(), 0);
    // A sweep is good once, and only until the next begins.
    for used in [&sweep, &again] {
        let error = images.node.sweep(used, &unneeded).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
    }
    let first = images.node.sweep_begin().await.unwrap();
    images.node.sweep_begin().await.unwrap();
    let error = images.node.sweep(&first, &unneeded).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
}

#[tokio::test]
async fn holds_are_all_or_none_and_end_with_their_owner() {
    let images = images().await;
    let (base, app) = (base(), app());
    images.image(&[&base, &app], "x", &["x:1"], None).await;
    let layers = [Digest::of(&base), Digest::of(&app)];
    let missing = [layers[0].clone(), Digest::of(b"not there")];
    assert!(images.library.hold(&missing).await.unwrap().is_none());
    let held = images.library.hold(&layers).await.unwrap().unwrap();
    images
        .library
        .remove(&images.ns, "x:1", false, true, &nobody)
        .await
        .unwrap();
    assert_eq!(images.left().len(), 2);
    // Given up without a word: the node hears of it soon.
    drop(held);
    let begun = std::time::Instant::now();
    while !images.left().is_empty() {
        assert!(begun.elapsed().as_secs() < 10, "the layers are still held");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        images.library.collect_garbage().await.unwrap();
    }
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_ends_clean() {
    let images = images().await;
    let archive = legacy_archive(&[base(), app()], &["a:1"]);
    for whole in [false, true] {
        let sent = if whole {
            archive.len()
        } else {
            archive.len() / 2
        };
        let (reader, mut writer) = tokio::io::duplex(64 << 10);
        let load = images
            .library
            .load(&images.ns, Box::pin(reader), None, Arc::new(drop));
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), load);
        assert!(waiting.await.is_err());
        tokio::io::AsyncWriteExt::write_all(&mut writer, &archive[..sent])
            .await
            .unwrap();
        drop(writer);
        let begun = std::time::Instant::now();
        let recorded = async || !images.catalog.list(&images.ns).await.unwrap().is_empty();
        while recorded().await != whole || images.left().len() != if whole { 2 } else { 0 } {
            assert!(begun.elapsed().as_secs() < 10, "{:?}", images.left());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn an_image_without_its_layers_is_not_recorded() {
    let images = images().await;
    let tar = Box::pin(std::io::Cursor::new(app()));
    let made = images.node.layer_import(tar).await.unwrap();
    let gone = Digest::of(&base());
    let layers = [(gone, 1000), (made.layer.diff_id.clone(), 300)];
    let new = NewImage {
        config: config(&layers.clone().map(|(layer, _)| layer), "x"),
        layers: layers
            .map(|(diff_id, size)| types::image::LayerRef { diff_id, size })
            .into(),
        ..NewImage::default()
    };
    // Nor one whose configuration tells of others.
    let other = NewImage {
        layers: Vec::new(),
        ..new.clone()
    };
    assert!(images.catalog.record(&images.ns, other).await.is_err());
    let refused = images.library.record_made(&images.ns, made, Ok(new)).await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotFound);
    assert!(images.left().is_empty());
    assert!(images.catalog.list(&images.ns).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_push_says_where_to_before_there_is_nothing() {
    let images = images().await;
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let report = {
        let heard = heard.clone();
        Arc::new(move |one: agent::images::Progress| heard.lock().unwrap().push(one.status))
    };
    let repository = "127.0.0.1:1/none".parse().unwrap();
    let pushed = images
        .library
        .push(&images.ns, &repository, false, Default::default(), report);
    assert_eq!(
        pushed.await.unwrap_err().message,
        "An image does not exist locally with the tag: 127.0.0.1:1/none"
    );
    assert_eq!(
        *heard.lock().unwrap(),
        ["The push refers to repository [127.0.0.1:1/none]"]
    );
}
