//! Which layers stay on the node, and who holds them.

use super::*;

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
async fn a_sweep_spares_what_was_held_since_it_began() {
    let images = images().await;
    let tar = base();
    let layer = Digest::of(&tar);
    let import = async || {
        let tar = Box::pin(std::io::Cursor::new(tar.clone()));
        images
            .node
            .layer_import(tar, agent::images::Allowance::all())
            .await
            .unwrap()
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
async fn an_image_without_its_layers_is_not_recorded() {
    let images = images().await;
    let tar = Box::pin(std::io::Cursor::new(app()));
    let made = images
        .node
        .layer_import(tar, agent::images::Allowance::all())
        .await
        .unwrap();
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
