//! What comes in and goes out: load, save, import, push; broken archives leave nothing.

use super::{
    archives::{legacy_archive, oci_archive},
    *,
};

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
