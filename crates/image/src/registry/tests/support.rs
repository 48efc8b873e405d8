//! What the tests share: registries to talk to, and a sink and source in memory.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use types::{Digest, Error, Reference, Result};

use crate::registry::{
    Client, Credentials, Options, Patience, Progress, PullRequest, PullSink, PulledImage,
    PushImage, PushLayer, PushSource, Report, gzip,
    manifest::{Descriptor, Manifest},
};

/// No test may hang.
pub(super) async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("in time")
}

pub(super) fn client() -> Client {
    client_with(Options::default())
}

pub(super) fn client_with(options: Options) -> Client {
    let patience = Patience {
        attempts: 4,
        pause: Duration::from_millis(5),
    };
    Client::new(Options {
        patience,
        ..options
    })
    .unwrap()
}

/// Collects messages: `id: status`, counts left out.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Progress>>>);

impl Log {
    pub(super) fn report(&self) -> Report {
        let log = self.0.clone();
        Arc::new(move |progress| log.lock().unwrap().push(progress))
    }
    pub(super) fn all(&self) -> Vec<Progress> {
        self.0.lock().unwrap().clone()
    }
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |one: Progress| {
            if one.id.is_empty() {
                one.status
            } else {
                format!("{}: {}", one.id, one.status)
            }
        };
        self.all().into_iter().map(line).collect()
    }
    pub(super) fn has(&self, line: &str) -> bool {
        self.lines().iter().any(|one| one == line)
    }
}

/// An image store in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) layers: Mutex<BTreeMap<Digest, Vec<u8>>>,
    pub(super) images: Mutex<BTreeMap<Reference, PulledImage>>,
}

#[async_trait::async_trait]
impl PullSink for Memory {
    async fn has_image(&self, id: &Digest, _: &[Digest]) -> Result<bool> {
        Ok(self
            .images
            .lock()
            .unwrap()
            .values()
            .any(|image| image.id == *id))
    }
    async fn has_layer(&self, diff_id: &Digest) -> Result<bool> {
        Ok(self.layers.lock().unwrap().contains_key(diff_id))
    }
    fn put_layer(&self, diff_id: &Digest, tar: &mut (dyn Read + Send)) -> Result<()> {
        let mut content = Vec::new();
        tar.read_to_end(&mut content)
            .map_err(|source| Error::wrap("unpacking", source))?;
        if Digest::of(&content) != *diff_id {
            return Err(Error::system("wrong diff id"));
        }
        self.layers.lock().unwrap().insert(diff_id.clone(), content);
        Ok(())
    }
    async fn put_image(&self, image: PulledImage) -> Result<bool> {
        let id = image.id.clone();
        Ok(self
            .images
            .lock()
            .unwrap()
            .insert(image.reference.clone(), image)
            .is_none_or(|old| old.id != id))
    }
}

impl PushSource for Memory {
    fn open_layer(&self, diff_id: &Digest) -> Result<Box<dyn Read + Send>> {
        let content = self.layers.lock().unwrap().get(diff_id).cloned();
        Ok(Box::new(std::io::Cursor::new(
            content.ok_or_else(|| Error::not_found("no such layer"))?,
        )))
    }
}

/// Bytes that do not compress well and differ by `seed`.
pub(super) fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An image of `layers` with its configuration.
pub(super) fn config_of(layers: &[Vec<u8>], architecture: &str) -> Bytes {
    let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": ids },
    });
    config.to_string().into()
}

/// An image to push, and the source that has its layers.
pub(super) fn image(reference: &str, layers: &[Vec<u8>]) -> (PushImage, Arc<Memory>) {
    let memory = Memory::default();
    let mut list = Vec::new();
    for layer in layers {
        let diff_id = Digest::of(layer);
        list.push(PushLayer {
            diff_id: diff_id.clone(),
            size: layer.len() as u64,
            known: Vec::new(),
        });
        memory.layers.lock().unwrap().insert(diff_id, layer.clone());
    }
    let config = config_of(layers, host_architecture().as_str());
    (
        PushImage {
            reference: reference.parse().unwrap(),
            config,
            layers: list,
            original: None,
        },
        Arc::new(memory),
    )
}

pub(super) fn host_architecture() -> String {
    crate::registry::Platform::host().architecture
}

pub(super) fn request(reference: &str) -> PullRequest {
    PullRequest {
        reference: reference.parse().unwrap(),
        platform: None,
        all_tags: false,
        credentials: Credentials::default(),
    }
}

/// The blobs of a one-layer image: manifest, configuration, gzip layer.
pub(super) struct Served {
    pub(super) manifest: Bytes,
    pub(super) config: Bytes,
    pub(super) layer: Bytes,
    pub(super) layer_digest: Digest,
}

pub(super) fn served(tar: &[u8]) -> Served {
    let config = config_of(&[tar.to_vec()], &host_architecture());
    let layer = Bytes::from(gzip(&mut &*tar, Vec::new()).unwrap());
    let descriptor = Descriptor::of(super::super::manifest::DOCKER_LAYER, &layer);
    let layer_digest = descriptor.digest.clone();
    let manifest = Manifest::for_layers(Descriptor::of("", &config), &[descriptor])
        .to_bytes()
        .unwrap()
        .into();
    Served {
        manifest,
        config,
        layer,
        layer_digest,
    }
}

/// A `docker-registry` process with its data in a temporary directory.
pub(super) struct Registry {
    child: Child,
    pub(super) host: String,
    _data: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `u` with password `secret`, as htpasswd writes it.
const HTPASSWD: &str = "u:$2b$04$4ZlX.Ynd9rMdkEJ1PQIHVOMBVKmNyIQ97XiLZXCmoWdq8zERlcvcO\n";

pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Registry {
    pub(super) fn open() -> Self {
        Self::start("", None)
    }

    pub(super) fn with_password() -> Self {
        Self::start(
            "auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n",
            None,
        )
    }

    pub(super) fn with_tls(tls: &Tls) -> Self {
        Self::start("", Some(tls))
    }

    fn start(extra: &str, tls: Option<&Tls>) -> Self {
        // Another process may take the port between its choice and its use.
        (0..10)
            .find_map(|_| Self::try_start(extra, tls))
            .expect("a registry")
    }

    fn try_start(extra: &str, tls: Option<&Tls>) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().to_str().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        std::fs::write(data.path().join("htpasswd"), HTPASSWD).unwrap();
        let mut http = format!("http:\n  addr: {host}\n  secret: s\n");
        if let Some(tls) = tls {
            std::fs::write(data.path().join("cert"), &tls.certificate).unwrap();
            std::fs::write(data.path().join("key"), &tls.key).unwrap();
            http += "  tls:\n    certificate: DIR/cert\n    key: DIR/key\n";
        }
        let config = format!("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: DIR/data\n{http}{extra}").replace("DIR", dir);
        let path = data.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let binary = std::env::var_os("DOCKER_REGISTRY_BIN").unwrap_or("docker-registry".into());
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let registry = Self {
            child: command.spawn().expect("docker-registry is installed"),
            host,
            _data: data,
        };
        registry.wait().then_some(registry)
    }

    fn wait(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if std::net::TcpStream::connect(&self.host).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}
