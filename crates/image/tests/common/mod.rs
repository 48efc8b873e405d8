//! What the tests share: a tar builder that can also build wrong tars, and a layer store.
//! Those of the crate `engine` use it, too.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use image::LayerStore;
use types::Digest;

/// Builds tars, right and wrong ones.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// One header block.
pub(crate) fn header(name: &[u8], flag: u8, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(if flag == b'5' { b"0000755" } else { b"0000644" });
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes().get(..11).unwrap());
    block[136..147].copy_from_slice(b"07777777777");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Sets the checksum.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(&header(name.as_bytes(), b'0', content.len() as u64))
            .content(content)
    }
    pub(crate) fn dir(self, name: &str) -> Self {
        self.raw(&header(name.as_bytes(), b'5', 0))
    }
    pub(crate) fn link(self, flag: u8, name: &str, target: &str) -> Self {
        let mut block = header(name.as_bytes(), flag, 0);
        block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        seal(&mut block);
        self.raw(&block)
    }
    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(b'2', name, target)
    }
    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.link(b'1', name, target)
    }
    pub(crate) fn device(self, flag: u8, name: &str, major: u32, minor: u32) -> Self {
        let mut block = header(name.as_bytes(), flag, 0);
        block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
        block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        seal(&mut block);
        self.raw(&block)
    }
    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(&header(b"PaxHeaders/x", b'x', content.len() as u64))
            .content(&content)
    }
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

/// A layer store in a directory that goes away with it.
pub(crate) struct Layers {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<LayerStore>,
}

pub(crate) fn layers() -> Layers {
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::open(dir.path()).unwrap();
    Layers { dir, store }
}

impl Layers {
    /// Names in the store's directory beside the base layer.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path().join("layers"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "base")
            .collect();
        names.sort();
        names
    }
    /// Ingests, and checks that the tar comes back exactly.
    pub(crate) fn exact(&self, tar: &[u8]) -> PathBuf {
        let made = self
            .store
            .ingest(tar, Some(&Digest::of(tar)))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(made.meta.tar_size, tar.len() as u64);
        let mut back = Vec::new();
        self.store
            .tar_stream(&made.meta.diff_id)
            .unwrap()
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == tar, "the tar that comes back differs");
        self.store.tree(&made.meta.diff_id)
    }
    /// Ingests what must fail; nothing may be left. Returns the message.
    pub(crate) fn refused(&self, tar: &[u8]) -> String {
        let before = self.left();
        let error = self
            .store
            .ingest(tar, None)
            .expect_err("this tar must be refused");
        assert_eq!(self.left(), before, "{error}");
        error.message
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn have(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// All paths below `dir`, for comparisons.
pub(crate) fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let entry = entry.unwrap();
            found.push(
                entry
                    .path()
                    .strip_prefix(dir)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// A configuration's text; `extra` tells images apart.
pub(crate) fn config(layers: &[Digest], extra: &str) -> String {
    serde_json::json!({
        "architecture": types::image::Platform::host().architecture,
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"extra": extra}, "Volumes": null},
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": layers.iter().map(|_| serde_json::json!({"created_by": extra})).collect::<Vec<_>>(),
    })
    .to_string()
}
