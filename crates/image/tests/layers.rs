//! The layer store: unpacking, exact tars, whiteouts, failures that leave nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod common;

use std::{
    io::{Read as _, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    process::Command,
};

use common::{Tar, have, header, layers, listing, run, seal};
use image::LayerStore;
use types::Digest;

#[test]
fn unpacks_everything() {
    let layers = layers();
    let mut setuid = header(b"bin/su", b'0', 3);
    setuid[100..107].copy_from_slice(b"0004755");
    setuid[108..115].copy_from_slice(b"0001750");
    setuid[116..123].copy_from_slice(b"0000144");
    seal(&mut setuid);
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::default()
        .dir("bin/")
        .raw(&setuid)
        .content(b"su!")
        .hardlink("bin/su2", "bin/su")
        .symlink("bin/out", "../../../../etc/passwd")
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("SCHILY.xattr.user.k", b"v\0\n"),
            ("SCHILY.xattr.security.capability", capability),
        ])
        .file("implicit/parents/ping", b"ping")
        .device(b'3', "dev/null", 1, 3)
        .device(b'4', "dev/sda", 8, 0)
        .raw(&header(b"dev/pipe", b'6', 0))
        .pax(&[("path", "long/".repeat(60).as_bytes())])
        .dir("short")
        .end();
    let tree = layers.exact(&tar);
    let su = std::fs::metadata(tree.join("bin/su")).unwrap();
    assert_eq!(
        (
            su.mode() & 0o7777,
            su.uid(),
            su.gid(),
            su.nlink(),
            su.mtime()
        ),
        (0o4755, 1000, 100, 2, 0o7_777_777_777)
    );
    assert_eq!(
        std::fs::metadata(tree.join("bin")).unwrap().mtime(),
        0o7_777_777_777
    );
    assert_eq!(
        std::fs::metadata(tree.join("implicit")).unwrap().mode() & 0o7777,
        0o755
    );
    let ping = std::fs::metadata(tree.join("implicit/parents/ping")).unwrap();
    assert_eq!(
        (ping.mtime(), ping.mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    assert!(
        std::fs::metadata(tree.join("dev/null"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert!(
        std::fs::metadata(tree.join("dev/sda"))
            .unwrap()
            .file_type()
            .is_block_device()
    );
    assert!(
        std::fs::metadata(tree.join("dev/pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(
        std::fs::read_link(tree.join("bin/out")).unwrap().to_str(),
        Some("../../../../etc/passwd")
    );
    assert!(tree.join("long/".repeat(60)).is_dir());
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(
        tree.join("implicit/parents/ping"),
        "security.capability",
        &mut value[..],
    )
    .unwrap();
    assert_eq!(&value[..length], capability);
    let length =
        rustix::fs::getxattr(tree.join("implicit/parents/ping"), "user.k", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"v\0\n");
}

#[test]
fn whiteouts() {
    let layers = layers();
    let tar = Tar::default()
        .file(".wh.gone", b"")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file(".wh.again", b"")
        .dir("again")
        .file("again/x", b"")
        .file(".wh.replaced", b"")
        .file("replaced", b"new")
        .file("stays", b"here")
        .file(".wh.stays", b"")
        .file(".wh..wh.plnk/1.2", b"aufs")
        .end();
    let tree = layers.exact(&tar);
    let gone = std::fs::symlink_metadata(tree.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::getxattr(tree.join(name), "trusted.overlay.opaque", &mut value[..]).is_ok()
            && value == *b"y"
    };
    assert!(opaque("opaque") && opaque("again"));
    assert_eq!(std::fs::read(tree.join("replaced")).unwrap(), b"new");
    assert_eq!(std::fs::read(tree.join("stays")).unwrap(), b"here");
    assert_eq!(
        listing(&tree),
        ["again", "again/x", "gone", "opaque", "replaced", "stays"]
    );
}

#[test]
fn odd_tars_come_back_exactly() {
    let layers = layers();
    layers.exact(&[]);
    layers.exact(&[0; 1024]);
    layers.exact(&Tar::default().file("a", b"no end").0);
    layers.exact(
        &[
            Tar::default().file("a", b"x").end(),
            vec![0; 9000],
            b"garbage behind the end".to_vec(),
        ]
        .concat(),
    );
    // Content in padding and in headers of links, duplicates of all kinds.
    let mut padded = Tar::default().file("p", b"12345");
    let at = padded.0.len() - 10;
    padded.0[at..].copy_from_slice(b"in padding");
    layers.exact(&padded.end());
    let tar = Tar::default()
        .file("a", b"first")
        .hardlink("b", "a")
        .file("a", b"second")
        .file("a", b"third")
        .dir("a")
        .file("a/x", b"in the directory")
        .dir("a/deep")
        .file("a/deep/y", b"deep")
        .file("a/deep", b"no longer")
        .symlink("a", "b")
        .file("a", b"last")
        .file("empty", b"")
        .dir("d")
        .symlink("way", "d")
        .file("way/through", b"over a link")
        .dir("way")
        .file("way/through", b"now in a directory")
        .end();
    let tree = layers.exact(&tar);
    assert_eq!(std::fs::read(tree.join("a")).unwrap(), b"last");
    assert_eq!(std::fs::read(tree.join("b")).unwrap(), b"first");
    assert_eq!(
        std::fs::read(tree.join("d/through")).unwrap(),
        b"over a link"
    );
    assert_eq!(
        std::fs::read(tree.join("way/through")).unwrap(),
        b"now in a directory"
    );
    let id = Digest::of(&tar);
    let size = ["first", "over a link", "now in a directory", "last"]
        .iter()
        .map(|text| text.len() as u64)
        .sum::<u64>();
    assert_eq!(layers.store.meta(&id).unwrap().size, size);
}

/// A tree with everything that archivers write differently.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(
        root.join("d".repeat(90))
            .join("e".repeat(90))
            .join("f".repeat(90)),
    )
    .unwrap();
    std::fs::write(
        root.join("d".repeat(90))
            .join("e".repeat(90))
            .join("x".repeat(120)),
        "long",
    )
    .unwrap();
    std::fs::write(root.join("größe-ünïcode"), "x".repeat(513)).unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("block"), vec![7; 512]).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), root.join("longlink")).unwrap();
    std::fs::hard_link(root.join("block"), root.join("hard")).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for at in 0..40u64 {
        rustix::io::pwrite(&sparse, &[b'A' + at as u8; 4096], at * 100_000).unwrap();
    }
    sparse.set_len(10_000_000).unwrap();
    dir
}

#[test]
fn tars_of_other_programs() {
    let (layers, sample, work) = (layers(), sample(), tempfile::tempdir().unwrap());
    let mut made = Vec::new();
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        for options in [
            &[][..],
            &["--sparse"],
            &["--sparse", "--sparse-version=0.0"],
            &["--sparse", "--sparse-version=0.1"],
            &["--sparse", "--sparse-version=1.0"],
        ] {
            let out = work
                .path()
                .join(format!("{format}{}.tar", options.join("")));
            let mut command = Command::new("tar");
            command
                .arg(format!("--format={format}"))
                .args(options)
                .arg("-cf")
                .arg(&out)
                .arg("-C")
                .arg(sample.path())
                .arg(".");
            // The older formats cannot say everything; what they leave out does not matter.
            if command.output().unwrap().status.success() {
                made.push((out, format != "v7" && format != "ustar"));
            }
        }
    }
    if have("busybox") || Command::new("busybox").output().is_ok() {
        let out = work.path().join("busybox.tar");
        run(Command::new("busybox")
            .args(["tar", "-cf"])
            .arg(&out)
            .arg("-C")
            .arg(sample.path())
            .arg("."));
        made.push((out, true));
    }
    if have("python3") {
        for format in ["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"] {
            let out = work.path().join(format!("{format}.tar"));
            let script = format!(
                "import tarfile,sys\nt=tarfile.open(sys.argv[1],'w',format=tarfile.{format})\nt.add(sys.argv[2],'.')\nt.close()"
            );
            let mut command = Command::new("python3");
            if command
                .arg("-c")
                .arg(script)
                .arg(&out)
                .arg(sample.path())
                .output()
                .unwrap()
                .status
                .success()
            {
                made.push((out, true));
            }
        }
    }
    assert!(made.len() > 8);
    for (tar, whole) in made {
        let bytes = std::fs::read(&tar).unwrap();
        let tree = layers.exact(&bytes);
        if whole {
            assert_eq!(listing(&tree), listing(sample.path()), "{}", tar.display());
            for name in ["sparse", "größe-ünïcode", "block"] {
                assert!(
                    std::fs::read(tree.join(name)).unwrap()
                        == std::fs::read(sample.path().join(name)).unwrap(),
                    "{name} of {}",
                    tar.display()
                );
            }
        }
    }
}

#[test]
fn compressed_streams() {
    let layers = layers();
    let tar = Tar::default().file("a", &vec![b'x'; 3_000_000]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for compressed in [&gzip, &zstd] {
        let layer = layers.store.ingest(&compressed[..], None).unwrap();
        assert_eq!(layer.meta.diff_id, Digest::of(&tar));
        layers.refused(&compressed[..compressed.len() - 9]);
    }
    assert!(layers.refused(b"BZh91AY&SY").contains("bzip2"));
    let mut broken = gzip.clone();
    let at = broken.len() - 3;
    broken[at] ^= 1;
    layers.refused(&broken);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let layers = layers();
    let tar = Tar::default().file("a", b"x").end();
    let error = layers
        .store
        .ingest(&tar[..], Some(&Digest::of(b"other")))
        .unwrap_err();
    assert_eq!(error.kind, types::Kind::InvalidParameter);
    assert!(layers.left().is_empty());
    for length in [1, 511, 512, 513, 700, 1023] {
        layers.refused(&tar[..length]);
    }
}

#[test]
fn evil_tars_are_refused_or_harmless() {
    let (layers, outside) = (layers(), tempfile::tempdir().unwrap());
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let (out, file) = (outside.path().to_str().unwrap(), victim.to_str().unwrap());
    let tar = Tar::default;

    for escape in ["../x", "a/../../x", "..", "a/b/../../../../x"] {
        assert!(
            layers
                .refused(&tar().file(escape, b"x").end())
                .contains("outside"),
            "{escape}"
        );
        layers.refused(&tar().dir(escape).end());
        layers.refused(&tar().symlink(escape, "y").end());
    }
    // Absolute names lose their slash.
    let tree = layers.exact(&tar().file("/abs/./x/../y", b"x").file("//../z", b"z").end());
    assert_eq!(listing(&tree), ["abs", "abs/y", "z"]);

    // Links lead at most to another place inside.
    layers.refused(&tar().symlink("l", out).file("l/victim", b"evil").end());
    let tree = layers.exact(
        &tar()
            .symlink("l", "../../../..")
            .file("l/inside", b"x")
            .end(),
    );
    assert_eq!(listing(&tree), ["inside", "l"]);
    let tree = layers.exact(&tar().symlink("l", file).file("l", b"replaced").end());
    assert_eq!(std::fs::read(tree.join("l")).unwrap(), b"replaced");
    let tree = layers.exact(
        &tar()
            .symlink("l", out)
            .dir("l")
            .file("l/victim", b"evil")
            .end(),
    );
    assert!(tree.join("l").is_dir());
    layers.refused(
        &tar()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", b"x")
            .end(),
    );
    let tree = layers.exact(&tar().symlink("l", out).file(".wh.l", b"").end());
    assert_eq!(listing(&tree), ["l"]);

    // Hard links stay inside and need their target.
    assert!(
        layers
            .refused(&tar().hardlink("h", "../../../victim").end())
            .contains("outside")
    );
    layers.refused(&tar().hardlink("h", file).end());
    layers.refused(&tar().symlink("l", out).hardlink("h", "l/victim").end());
    layers.refused(&tar().hardlink("h", "missing").end());
    layers.refused(&tar().dir("d").hardlink("h", "d").end());
    layers.refused(&tar().file(".wh.w", b"").hardlink("h", "w").end());
    let tree = layers.exact(&tar().symlink("l", file).hardlink("h", "l").end());
    assert!(
        std::fs::symlink_metadata(tree.join("h"))
            .unwrap()
            .is_symlink()
    );

    // Overlay's own attributes cannot be planted.
    let planted = [
        ("SCHILY.xattr.trusted.overlay.redirect", &b"/etc"[..]),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    let tree = layers.exact(&tar().pax(&planted).dir("d").end());
    assert!(
        rustix::fs::getxattr(
            tree.join("d"),
            "trusted.overlay.redirect",
            &mut [0u8; 8][..]
        )
        .is_err()
    );

    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn wrong_headers_are_refused() {
    let layers = layers();
    let tar = Tar::default;
    let with = |change: &dyn Fn(&mut [u8; 512])| {
        let mut block = header(b"x", b'0', 0);
        change(&mut block);
        seal(&mut block);
        tar().raw(&block).end()
    };
    // Negative, huge and nonsensical sizes.
    layers.refused(&with(&|block| block[124..136].fill(0xff)));
    layers.refused(&with(&|block| {
        block[124..136].copy_from_slice(b"77777777777\0")
    }));
    layers.refused(&with(&|block| {
        block[124..136].copy_from_slice(&[
            0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ])
    }));
    layers.refused(&with(&|block| {
        block[124..136].copy_from_slice(&[
            0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ])
    }));
    layers.refused(&with(&|block| block[124..127].copy_from_slice(b"9xy")));
    layers.refused(&with(&|block| block[108..116].fill(0xff)));
    layers.refused(&with(&|block| block[156] = b'M'));
    layers.refused(
        &tar()
            .pax(&[("size", b"18446744073709551615")])
            .file("x", b"")
            .end(),
    );
    layers.refused(&tar().pax(&[("size", b"-1")]).file("x", b"").end());
    layers.refused(&tar().pax(&[("path", b"a\0b")]).file("x", b"").end());
    layers.refused(&tar().pax(&[("path", b"")]).raw(&[1; 512]).end());
    layers.refused(&tar().raw(&header(b"x", b'x', (1 << 33) - 1)).end());
    layers.refused(&tar().raw(&header(b"x", b'L', 1 << 21)).end());
    layers.refused(
        &tar()
            .pax(&[("path", &vec![b'a'; 300])])
            .file("x", b"")
            .end(),
    );
    layers.refused(&tar().pax(&[("path", b"x")]).0);
    layers.refused(&tar().file("", b"x").end());
    layers.refused(&tar().file("a", b"x").file("a/b", b"x").end());
    layers.refused(&tar().symlink("l", "").end());
    layers.refused(&Tar(vec![1; 2048]).0);
    let mut unsealed = header(b"x", b'0', 0);
    unsealed[0] = b'y';
    layers.refused(&tar().raw(&unsealed).end());
    // Sparse maps that lie.
    for map in [
        "0,5,3,5",
        "0,99999",
        "0",
        "18446744073709551615,5",
        "5,1,0,1",
    ] {
        layers.refused(
            &tar()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"50"),
                    ("GNU.sparse.map", map.as_bytes()),
                ])
                .file("s", b"12345")
                .end(),
        );
    }
    let huge = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"18446744073709551615"),
    ];
    layers.refused(&tar().pax(&huge).file("s", b"0\n").end());
    let many = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"1"),
    ];
    layers.refused(&tar().pax(&many).file("s", b"99999999999\n").end());
}

#[test]
fn deep_trees_come_and_go() {
    let layers = layers();
    let deep = "d/".repeat(1800);
    let tar = Tar::default()
        .pax(&[("path", deep.as_bytes())])
        .dir("x")
        .pax(&[("path", format!("{deep}f").as_bytes())])
        .file("x", b"deep")
        .end();
    layers.exact(&tar);
    let broken = [&tar[..tar.len() - 1024], &[1; 512]].concat();
    layers.refused(&broken);
    layers.refused(
        &Tar::default()
            .pax(&[("path", "d/".repeat(5000).as_bytes())])
            .dir("x")
            .end(),
    );
}

#[test]
fn what_a_crash_left_is_removed() {
    let layers = layers();
    let kept = layers
        .store
        .ingest(&Tar::default().file("a", b"x").end()[..], None)
        .unwrap();
    let left = layers.dir.path().join("layers/tmp-left");
    std::fs::create_dir_all(left.join("tree/etc")).unwrap();
    std::fs::write(left.join("tree/etc/x"), "x").unwrap();
    let again = LayerStore::open(layers.dir.path()).unwrap();
    assert!(!left.exists());
    assert!(again.contains(&kept.meta.diff_id));
    assert_eq!(again.list().unwrap(), std::slice::from_ref(&kept.meta));
}

#[test]
fn a_loss_of_power_is_noticed() {
    let layers = layers();
    let ingest = |name: &str| {
        let layer = layers
            .store
            .ingest(&Tar::default().file(name, b"data").end()[..], None);
        layer.unwrap().meta.diff_id
    };
    let (lost, whole) = (ingest("lost"), ingest("whole"));
    for layer in [&lost, &whole] {
        let mark = layers
            .dir
            .path()
            .join("layers")
            .join(layer.hex())
            .join("unsynced");
        while mark.exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::fs::write(mark, "another boot").unwrap();
    }
    std::fs::write(layers.store.tree(&lost).join("lost"), "").unwrap();
    let again = LayerStore::open(layers.dir.path()).unwrap();
    assert!(again.contains(&whole) && !again.contains(&lost));
}

#[test]
fn a_damaged_layer_is_noticed() {
    let layers = layers();
    let layer = layers
        .store
        .ingest(&Tar::default().file("a", b"good").end()[..], None)
        .unwrap();
    let read = || {
        let mut back = Vec::new();
        layers
            .store
            .tar_stream(&layer.meta.diff_id)
            .unwrap()
            .read_to_end(&mut back)
    };
    read().unwrap();
    let file = layers.store.tree(&layer.meta.diff_id).join("a");
    std::fs::write(&file, "evil").unwrap();
    assert!(read().unwrap_err().to_string().contains("damaged"));
    std::fs::write(&file, "e").unwrap();
    assert!(read().unwrap_err().to_string().contains("shorter"));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(read().is_err());
}

#[test]
fn the_same_layer_at_once() {
    let layers = layers();
    let tar = Tar::default().file("a", &vec![b'x'; 500_000]).end();
    let id = Digest::of(&tar);
    let existed: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|index| {
                let (tar, id, store) = (&tar, &id, &layers.store);
                scope.spawn(move || {
                    store
                        .ingest(&tar[..], (index % 2 == 0).then_some(id))
                        .unwrap()
                        .existed
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(existed.iter().filter(|existed| !**existed).count(), 1);
    assert_eq!(layers.left(), [id.hex()]);
}
