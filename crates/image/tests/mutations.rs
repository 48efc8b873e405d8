//! Valid archives with random damage: no panic, nothing outside, nothing left behind.
//! Bounded, so that it runs with all tests; `fuzz/` goes on without end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod common;

use std::path::Path;

use common::{Tar, config, header, seal};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use types::Digest;

fn layer() -> Vec<u8> {
    Tar::default()
        .dir("bin/")
        .file("bin/sh", &[b's'; 700])
        .hardlink("bin/ash", "bin/sh")
        .symlink("lib", "usr/lib")
        .symlink("up", "../..")
        .file("up/x", b"x")
        .pax(&[
            ("path", b"long/name"),
            ("mtime", b"12.5"),
            ("SCHILY.xattr.user.a", b"b"),
        ])
        .file("x", b"content")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"9000"),
            ("GNU.sparse.name", b"sparse"),
        ])
        .file(
            "s",
            &[b"1\n4096\n5\n".to_vec(), vec![0; 503], b"12345".to_vec()].concat(),
        )
        .raw(&header(b"././@LongLink", b'L', 6))
        .content(b"a/b/c\0")
        .file("cut", b"y")
        .file("a/.wh.b", b"")
        .file("a/.wh..wh..opq", b"")
        .dir("bin")
        .file("bin/sh", b"again")
        .device(b'3', "null", 1, 3)
        .raw(&header(b"fifo", b'6', 0))
        .end()
}

fn archive() -> Vec<u8> {
    let layer = layer();
    let config = config(&[Digest::of(&layer)], "x");
    let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
    Tar::default()
        .file("c.json", config.as_bytes())
        .file("0/layer.tar", &layer)
        .symlink("1/layer.tar", "../0/layer.tar")
        .file(&blob(&layer), &layer)
        .file("index.json", br#"{"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#)
        .file("manifest.json", br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["0/layer.tar"]}]"#)
        .end()
}

/// One piece of damage.
#[derive(Debug, Clone)]
enum Damage {
    Byte {
        at: usize,
        value: u8,
    },
    /// As `Byte`, in a header whose checksum is made right again.
    Sealed {
        block: usize,
        at: usize,
        value: u8,
    },
    Swap {
        a: usize,
        b: usize,
    },
    Repeat {
        from: usize,
        to: usize,
    },
    Drop {
        block: usize,
    },
    Cut {
        at: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let (place, block) = (any::<usize>(), any::<usize>());
    let value = prop_oneof![
        any::<u8>(),
        Just(0),
        Just(0xff),
        Just(b'/'),
        Just(b'.'),
        b'0'..=b'9'
    ];
    // Mostly where it means something: names, numbers, the type.
    let field = prop_oneof![
        0usize..16,
        100usize..160,
        Just(156usize),
        157usize..170,
        257usize..265,
        386usize..512
    ];
    prop_oneof![
        1 => (place, value.clone()).prop_map(|(at, value)| Damage::Byte { at, value }),
        6 => (block, field, value).prop_map(|(block, at, value)| Damage::Sealed { block, at, value }),
        1 => (block, block).prop_map(|(a, b)| Damage::Swap { a, b }),
        1 => (block, block).prop_map(|(from, to)| Damage::Repeat { from, to }),
        1 => block.prop_map(|block| Damage::Drop { block }),
        1 => place.prop_map(|at| Damage::Cut { at }),
    ]
}

fn inflict(data: &mut Vec<u8>, damage: &Damage) {
    let blocks = data.len() / 512;
    if blocks == 0 {
        return;
    }
    let range = |block: usize| (block % blocks) * 512..(block % blocks) * 512 + 512;
    match *damage {
        Damage::Byte { at, value } => {
            let at = at % data.len();
            data[at] = value;
        }
        Damage::Sealed { block, at, value } => {
            let header: &mut [u8; 512] = (&mut data[range(block)]).try_into().unwrap();
            header[at] = value;
            seal(header);
        }
        Damage::Swap { a, b } => {
            let first = data[range(a)].to_vec();
            data.copy_within(range(b), range(a).start);
            data[range(b)].copy_from_slice(&first);
        }
        Damage::Repeat { from, to } => {
            let copy = data[range(from)].to_vec();
            let at = range(to).start;
            data.splice(at..at, copy);
        }
        Damage::Drop { block } => drop(data.drain(range(block))),
        Damage::Cut { at } => data.truncate(at % data.len()),
    }
}

/// Feeds damaged copies of `valid` to `target` in a scratch directory beside a canary.
fn bombard(valid: &[u8], cases: u32, target: impl Fn(&Path, &[u8])) {
    let outer = tempfile::tempdir().unwrap();
    let scratch = outer.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    std::fs::write(outer.path().join("canary"), "alive").unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = proptest::collection::vec(damage(), 1..6);
    runner
        .run(&strategy, |all| {
            let mut data = valid.to_vec();
            all.iter().for_each(|damage| inflict(&mut data, damage));
            target(&scratch, &data);
            prop_assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2);
            prop_assert_eq!(
                std::fs::read(outer.path().join("canary")).unwrap(),
                b"alive"
            );
            let names = std::fs::read_dir(scratch.join("layers"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = names
                .filter(|name| name.as_encoded_bytes().starts_with(b"tmp-"))
                .collect();
            prop_assert!(left.is_empty(), "left behind: {:?}", left);
            Ok(())
        })
        .unwrap();
}

#[test]
fn damaged_layers() {
    bombard(&layer(), 500, image::fuzz::apply);
}

#[test]
fn damaged_archives() {
    bombard(&archive(), 250, image::fuzz::load);
}
