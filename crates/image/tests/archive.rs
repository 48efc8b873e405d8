//! `docker cp` and `docker export` on plain directories.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod common;

use std::{
    fs::File,
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, symlink},
    },
    path::Path,
    process::{Command, Stdio},
};

use common::{Tar, listing};
use image::archive::{self, PutOptions};
use types::{Kind, Result};

struct Root(tempfile::TempDir);

fn root() -> Root {
    let root = Root(tempfile::tempdir().unwrap());
    let at = root.path();
    std::fs::create_dir_all(at.join("dir/sub")).unwrap();
    std::fs::write(at.join("dir/file"), "content").unwrap();
    std::fs::hard_link(at.join("dir/file"), at.join("dir/sub/hard")).unwrap();
    symlink("dir", at.join("link")).unwrap();
    symlink("/link/file", at.join("far")).unwrap();
    symlink("../../../../../etc/passwd", at.join("out")).unwrap();
    symlink("missing/x", at.join("broken")).unwrap();
    symlink("loop", at.join("loop")).unwrap();
    root
}

impl Root {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn open(&self) -> File {
        File::open(self.path()).unwrap()
    }
    fn stat(&self, path: &str) -> Result<archive::PathStat> {
        archive::stat(self.open().as_fd(), path)
    }
    /// The names in the tar of `path`.
    fn get(&self, path: &str) -> Result<Vec<String>> {
        let mut tar = Vec::new();
        archive::get(self.open().as_fd(), path, None, &mut tar)?;
        Ok(names(&tar))
    }
    fn put(&self, path: &str, tar: &[u8], options: PutOptions) -> Result<()> {
        archive::put(self.open().as_fd(), path, tar, options)
    }
}

/// What GNU tar finds in it.
fn names(tar: &[u8]) -> Vec<String> {
    use std::io::Write as _;
    let mut child = Command::new("tar")
        .args(["-tPf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn stats() {
    let root = root();
    let dir = root.stat("/dir").unwrap();
    assert_eq!(
        (dir.name.as_str(), dir.mode >> 31, dir.link_target.as_str()),
        ("dir", 1, "")
    );
    assert_eq!(
        (
            root.stat("/").unwrap().name.as_str(),
            root.stat("/dir/.").unwrap().name.as_str()
        ),
        ("/", ".")
    );
    let file = root.stat("dir/../dir//file").unwrap();
    assert_eq!(
        (file.name.as_str(), file.size, file.mode),
        ("file", 7, 0o644)
    );
    assert!(file.mtime.unix_seconds() > 0);
    for (link, target) in [
        ("/link", "/dir"),
        ("/far", "/dir/file"),
        ("/out", "/etc/passwd"),
        ("/broken", "/missing/x"),
    ] {
        let stat = root.stat(link).unwrap();
        assert_eq!(
            (stat.mode & (1 << 27) != 0, stat.link_target.as_str()),
            (true, target)
        );
    }
    assert_eq!(
        root.stat("/link/").unwrap().mode >> 31,
        1,
        "with a slash it is what the link leads to"
    );
    assert_eq!(root.stat("/../../dir").unwrap().name, "dir");
    for missing in ["/nope", "/dir/nope", "/broken/x", "/out/x"] {
        assert_eq!(
            root.stat(missing).unwrap_err().kind,
            Kind::NotFound,
            "{missing}"
        );
    }
    assert!(
        root.stat("").is_err()
            && root.stat("/loop/").is_err()
            && root.stat("/loop").is_err()
            && root.stat("/dir/file/").is_err()
    );
}

#[test]
fn gets() {
    let root = root();
    assert_eq!(
        root.get("/dir").unwrap(),
        ["dir/", "dir/file", "dir/sub/", "dir/sub/hard"]
    );
    assert_eq!(
        root.get("/dir/").unwrap(),
        ["dir/", "dir/file", "dir/sub/", "dir/sub/hard"]
    );
    assert_eq!(
        root.get("/dir/.").unwrap(),
        ["./", "./file", "./sub/", "./sub/hard"]
    );
    assert_eq!(root.get("/link").unwrap(), ["link"]);
    assert_eq!(
        root.get("/link/.").unwrap(),
        ["./", "./file", "./sub/", "./sub/hard"]
    );
    assert_eq!(root.get("/link/file").unwrap(), ["file"]);
    assert_eq!(root.get("/").unwrap()[0], "/");
    assert_eq!(root.get("/nope").unwrap_err().kind, Kind::NotFound);
    let mut tar = Vec::new();
    archive::export(root.open().as_fd(), None, &mut tar).unwrap();
    assert_eq!(
        names(&tar),
        [
            "broken",
            "dir/",
            "dir/file",
            "dir/sub/",
            "dir/sub/hard",
            "far",
            "link",
            "loop",
            "out"
        ]
    );
}

#[test]
fn puts() {
    let (root, outside) = (root(), tempfile::tempdir().unwrap());
    let tar = Tar::default()
        .dir("new")
        .file("new/file", b"x")
        .hardlink("new/hard", "new/file")
        .end();
    root.put(
        "/link",
        &tar,
        PutOptions {
            owner: Some((12, 34)),
            ..PutOptions::default()
        },
    )
    .unwrap();
    let facts = std::fs::metadata(root.path().join("dir/new/hard")).unwrap();
    assert_eq!((facts.uid(), facts.gid(), facts.nlink()), (12, 34, 2));
    assert_eq!(
        root.put("/nope", &tar, PutOptions::default())
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
    assert_eq!(
        root.put("/dir/file", &tar, PutOptions::default())
            .unwrap_err()
            .message,
        "extraction point is not a directory"
    );

    let careful = PutOptions {
        no_overwrite_dir_non_dir: true,
        ..PutOptions::default()
    };
    let over = Tar::default().file("sub", b"x").end();
    assert!(
        root.put("/dir", &over, careful)
            .unwrap_err()
            .message
            .contains("cannot overwrite directory")
    );
    let over_file = Tar::default().dir("file").end();
    assert!(
        root.put("/dir", &over_file, careful)
            .unwrap_err()
            .message
            .contains("cannot overwrite non-directory")
    );
    root.put("/dir", &over, PutOptions::default()).unwrap();
    assert!(root.path().join("dir/sub").is_file());

    // Links of the container, absolute and relative, lead at most to its own root.
    symlink(outside.path(), root.path().join("planted")).unwrap();
    let evil = Tar::default().file("planted/x", b"evil").end();
    assert!(root.put("/", &evil, PutOptions::default()).is_err());
    root.put(
        "/",
        &Tar::default()
            .symlink("up", "../../../../../..")
            .file("up/top", b"x")
            .end(),
        PutOptions::default(),
    )
    .unwrap();
    assert!(root.path().join("top").is_file());
    assert!(root.put("/planted", &tar, PutOptions::default()).is_err());
    assert!(
        root.put(
            "/dir",
            &Tar::default().file("../x", b"").end(),
            PutOptions::default()
        )
        .unwrap_err()
        .message
        .contains("outside")
    );
    assert!(
        root.put(
            "/dir",
            &Tar::default().hardlink("h", "/../../etc/passwd").end(),
            PutOptions::default()
        )
        .is_err()
    );
    // A whiteout is an ordinary file here.
    root.put(
        "/",
        &Tar::default().file(".wh.dir", b"").end(),
        PutOptions::default(),
    )
    .unwrap();
    assert!(root.path().join(".wh.dir").is_file() && root.path().join("dir").is_dir());
    assert_eq!(listing(outside.path()), Vec::<String>::new());
}

#[test]
fn endless_nesting_is_an_error() {
    let root = root();
    let mut at = root.path().to_owned();
    for _ in 0..300 {
        at.push("d");
    }
    std::fs::create_dir_all(&at).unwrap();
    assert!(root.get("/d").unwrap_err().message.contains("nested"));
}

#[test]
fn what_goes_in_comes_out() {
    let (one, two) = (root(), Root(tempfile::tempdir().unwrap()));
    let mut tar = Vec::new();
    archive::export(one.open().as_fd(), None, &mut tar).unwrap();
    two.put("/", &tar, PutOptions::default()).unwrap();
    assert_eq!(listing(two.path()), listing(one.path()));
    let mut again = Vec::new();
    archive::export(two.open().as_fd(), None, &mut again).unwrap();
    assert!(again == tar);
}
