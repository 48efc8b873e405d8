//! Root file systems: mounting, what changed, committing. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod common;

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use common::{Layers, Tar, layers, listing};
use image::{ChangeKind, RootfsSpec};
use types::Digest;

/// A mounted root file system; unmounted when it goes away.
struct Root<'a> {
    layers: &'a Layers,
    dir: tempfile::TempDir,
    ids: Vec<Digest>,
}

impl<'a> Root<'a> {
    fn spec(&self, volatile: bool) -> RootfsSpec {
        let path = |name: &str| self.dir.path().join(name);
        RootfsSpec {
            layers: self.ids.clone(),
            upper: path("upper"),
            work: path("work"),
            target: path("merged"),
            volatile,
            users: None,
        }
    }
    fn new(layers: &'a Layers, tars: &[Vec<u8>]) -> Self {
        let ids = tars
            .iter()
            .map(|tar| layers.store.ingest(&tar[..], None).unwrap().meta.diff_id)
            .collect();
        let root = Self {
            layers,
            dir: tempfile::tempdir_in(layers.dir.path()).unwrap(),
            ids,
        };
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(root.dir.path().join(name)).unwrap();
        }
        layers
            .store
            .mount_rootfs(&root.spec(false))
            .unwrap_or_else(|error| panic!("{error}"));
        root
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("merged").join(name)
    }
    fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }
    fn changes(&self) -> Vec<String> {
        let changes = self.layers.store.changes(&self.ids, &self.upper()).unwrap();
        let letter = |kind| match kind {
            ChangeKind::Modified => "C",
            ChangeKind::Added => "A",
            ChangeKind::Deleted => "D",
        };
        changes
            .iter()
            .map(|change| format!("{} {}", letter(change.kind), change.path))
            .collect()
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        self.layers
            .store
            .unmount_rootfs(&self.dir.path().join("merged"))
            .unwrap();
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn layers_stack() {
    let layers = layers();
    let low = Tar::default()
        .file("a", b"low")
        .file("b", b"low")
        .dir("d")
        .file("d/x", b"low")
        .dir("o")
        .file("o/hidden", b"")
        .end();
    let high = Tar::default()
        .file("b", b"high")
        .file("d/.wh.x", b"")
        .file("d/y", b"high")
        .dir("o")
        .file("o/.wh..wh..opq", b"")
        .end();
    let root = Root::new(&layers, &[low, high]);
    assert_eq!(
        (
            read(root.path("a")),
            read(root.path("b")),
            read(root.path("d/y"))
        ),
        ("low".into(), "high".into(), "high".into())
    );
    assert!(
        !root.path("d/x").exists() && !root.path("o/hidden").exists() && root.path("o").exists()
    );
    assert!(
        root.path("etc/hosts").exists() && root.path("proc").is_dir(),
        "the places to mount onto are there"
    );
    assert!(root.changes().is_empty());
}

#[test]
fn no_layers_and_many_layers() {
    let layers = layers();
    let empty = Root::new(&layers, &[]);
    std::fs::write(empty.path("x"), "x").unwrap();
    assert_eq!(empty.changes(), ["A /x"]);
    let many: Vec<Vec<u8>> = (0..125)
        .map(|index| {
            Tar::default()
                .file(&format!("f{index}"), b"")
                .file("same", index.to_string().as_bytes())
                .end()
        })
        .collect();
    let root = Root::new(&layers, &many);
    assert_eq!(read(root.path("same")), "124");
    assert!(root.path("f0").exists());
    let spec = RootfsSpec {
        layers: vec![root.ids[0].clone(); 126],
        ..root.spec(false)
    };
    assert!(
        layers
            .store
            .mount_rootfs(&spec)
            .unwrap_err()
            .message
            .contains("max depth exceeded")
    );
    let missing = RootfsSpec {
        layers: vec![Digest::of(b"?")],
        ..root.spec(false)
    };
    assert_eq!(
        layers.store.mount_rootfs(&missing).unwrap_err().kind,
        types::Kind::NotFound
    );
}

#[test]
fn volatile_mounts_can_be_repeated() {
    let layers = layers();
    let root = Root::new(&layers, &[]);
    for _ in 0..2 {
        layers.store.unmount_rootfs(&root.path("")).unwrap();
        layers.store.unmount_rootfs(&root.path("")).unwrap();
        layers.store.mount_rootfs(&root.spec(true)).unwrap();
        std::fs::write(root.path("x"), "x").unwrap();
    }
}

#[test]
fn changes_as_docker_diff() {
    let layers = layers();
    let tar = Tar::default()
        .dir("etc")
        .file("etc/passwd", b"x")
        .file("etc/gone", b"x")
        .dir("deep")
        .dir("deep/er")
        .file("deep/er/f", b"x")
        .dir("whole")
        .file("whole/f", b"")
        .dir("again")
        .file("again/f", b"")
        .dir("mode")
        .file("only", b"")
        .end();
    let root = Root::new(&layers, &[tar]);
    std::fs::write(root.path("etc/passwd"), "changed").unwrap();
    std::fs::remove_file(root.path("etc/gone")).unwrap();
    // Content only: the parents are listed although they did not change themselves.
    std::fs::write(root.path("deep/er/f"), "changed").unwrap();
    std::fs::create_dir_all(root.path("new/dir")).unwrap();
    std::fs::write(root.path("new/dir/file"), "12345").unwrap();
    std::fs::remove_dir_all(root.path("whole")).unwrap();
    std::fs::set_permissions(root.path("mode"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::hard_link(root.path("new/dir/file"), root.path("new/second")).unwrap();
    assert_eq!(
        root.changes(),
        [
            "C /deep",
            "C /deep/er",
            "C /deep/er/f",
            "C /etc",
            "D /etc/gone",
            "C /etc/passwd",
            "C /mode",
            "A /new",
            "A /new/dir",
            "A /new/dir/file",
            "A /new/second",
            "D /whole"
        ]
    );
    assert_eq!(layers.store.upper_size(&root.upper()).unwrap(), 7 + 7 + 5);
}

#[test]
fn a_commit_shows_the_same_files() {
    let layers = layers();
    let tar = Tar::default()
        .dir("d")
        .file("d/a", b"x")
        .file("d/b", b"y")
        .dir("o")
        .file("o/old", b"")
        .file("f", b"f")
        .end();
    let root = Root::new(&layers, &[tar]);
    std::fs::remove_file(root.path("d/a")).unwrap();
    std::fs::remove_dir_all(root.path("o")).unwrap();
    std::fs::create_dir(root.path("o")).unwrap();
    std::fs::write(root.path("o/new"), "new").unwrap();
    std::fs::write(root.path("setuid"), "s").unwrap();
    std::os::unix::fs::chown(root.path("setuid"), Some(7), Some(8)).unwrap();
    std::fs::set_permissions(root.path("setuid"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::hard_link(root.path("setuid"), root.path("z-link")).unwrap();
    std::os::unix::fs::symlink("setuid", root.path("sym")).unwrap();
    std::os::unix::net::UnixListener::bind(root.path("socket")).unwrap();
    rustix::fs::setxattr(
        root.path("setuid"),
        "user.test",
        b"v",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let layer = layers.store.commit_layer(&root.upper()).unwrap();
    let again = layers.store.commit_layer(&root.upper()).unwrap();
    assert!(
        again.existed && again.meta == layer.meta,
        "the same files give the same layer"
    );
    std::fs::remove_file(root.path("socket")).unwrap();

    let mut committed = Root::new(&layers, &[]);
    layers.store.unmount_rootfs(&committed.path("")).unwrap();
    committed.ids = vec![root.ids[0].clone(), layer.meta.diff_id.clone()];
    layers.store.mount_rootfs(&committed.spec(false)).unwrap();
    assert_eq!(listing(&committed.path("")), listing(&root.path("")));
    let facts = std::fs::metadata(committed.path("setuid")).unwrap();
    assert_eq!(
        (
            facts.uid(),
            facts.gid(),
            facts.mode() & 0o7777,
            facts.nlink()
        ),
        (7, 8, 0o4755, 2)
    );
    let mut value = [0; 8];
    assert_eq!(
        rustix::fs::getxattr(committed.path("setuid"), "user.test", &mut value[..]),
        Ok(1)
    );
}
