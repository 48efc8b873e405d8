//! What is on record: names, removal, history, usage.

use super::*;

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
