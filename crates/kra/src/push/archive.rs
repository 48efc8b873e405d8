//! Images in archives (`docker save`, OCI) and folders (OCI layouts).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use serde::Deserialize;
use types::{Digest, Reference};

use crate::exit::{Failure, Outcome};

/// Documents are smaller.
pub(super) const DOCUMENT: u64 = 16 << 20;

/// Files by their names, wherever they are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Archive {
        file: Arc<File>,
        /// Offset and length, bytes.
        places: Arc<HashMap<PathBuf, (u64, u64)>>,
    },
    Folder(PathBuf),
    /// Only what says what the images are; the layers have been read by.
    Documents(Arc<HashMap<PathBuf, Bytes>>),
}

/// An image in a source.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) references: Vec<Reference>,
    /// Of the configuration.
    pub(crate) id: Digest,
    pub(crate) config: String,
    /// The lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    path: PathBuf,
}

/// A part of a file.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::io(
        "reading the images",
        io::Error::new(io::ErrorKind::InvalidData, what.to_string()),
    )
}

impl Source {
    /// A file, or a folder with an OCI layout.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let reading = format!("reading {}", path.display());
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let file = File::open(path).map_err(|error| Failure::io(&reading, error))?;
        Self::of(file).map_err(|error| Failure::io(&reading, error))
    }

    /// An archive from a stream, compressed or not.
    pub(crate) fn of_stream(stream: impl Read + Send) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut decompressed(stream)?, &mut file)?;
        file.seek(SeekFrom::Start(0))?;
        Self::of(file)
    }

    /// An archive in a file.
    fn of(mut file: File) -> io::Result<Self> {
        let mut head = [0; 4];
        let count = file.read_at(&mut head, 0)?;
        if is_compressed(&head[..count]) {
            return Self::of_stream(file);
        }
        file.seek(SeekFrom::Start(0))?;
        let mut places = HashMap::new();
        let mut links = Vec::new();
        let mut archive = tar::Archive::new(file.try_clone()?);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let path = clean(&entry.path()?);
            match entry.header().entry_type() {
                kind if kind.is_file() => {
                    places.insert(path, (entry.raw_file_position(), entry.size()));
                }
                kind if kind.is_symlink() || kind.is_hard_link() => {
                    let Some(target) = entry.link_name()? else {
                        continue;
                    };
                    let target = match (kind.is_symlink(), path.parent()) {
                        (true, Some(parent)) => clean(&parent.join(&target)),
                        _ => clean(&target),
                    };
                    links.push((path, target));
                }
                _ => {}
            }
        }
        // Old versions of docker write a layer that several images have once.
        for (path, target) in links {
            if let Some(place) = places.get(&target).copied() {
                places.insert(path, place);
            }
        }
        Ok(Self::Archive {
            file: Arc::new(file),
            places: Arc::new(places),
        })
    }

    fn has(&self, path: &Path) -> bool {
        match self {
            Self::Archive { places, .. } => places.contains_key(path),
            Self::Folder(folder) => folder.join(path).is_file(),
            Self::Documents(documents) => documents.contains_key(path),
        }
    }

    fn stream(&self, path: &Path) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let missing = || {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} is missing", path.display()),
            )
        };
        match self {
            Self::Archive { file, places } => {
                let (at, left) = *places.get(path).ok_or_else(missing)?;
                let part = Part {
                    file: file.clone(),
                    at,
                    left,
                };
                Ok((Box::new(part), left))
            }
            Self::Folder(folder) => {
                let file = File::open(folder.join(path))?;
                let length = file.metadata()?.len();
                Ok((Box::new(file), length))
            }
            Self::Documents(documents) => {
                let document = documents.get(path).ok_or_else(missing)?;
                Ok((
                    Box::new(Buf::reader(document.clone())),
                    document.len() as u64,
                ))
            }
        }
    }

    fn text(&self, path: &Path) -> Outcome<String> {
        let read = || -> io::Result<String> {
            let (stream, length) = self.stream(path)?;
            if length > DOCUMENT {
                return Err(io::Error::other("it is too large"));
            }
            let mut text = String::new();
            stream.take(DOCUMENT).read_to_string(&mut text)?;
            Ok(text)
        };
        read().map_err(|error| Failure::io(&format!("reading {}", path.display()), error))
    }

    fn document<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Outcome<T> {
        serde_json::from_str(&self.text(path)?)
            .map_err(|error| bad(format_args!("{}: {error}", path.display())))
    }

    /// A layer's tar.
    pub(crate) fn layer(&self, layer: &Layer) -> io::Result<impl Read + Send + use<>> {
        let (stream, _) = self.stream(&layer.path)?;
        decompressed(stream)
    }

    /// Bytes of a layer as it is stored.
    pub(crate) fn length(&self, layer: &Layer) -> u64 {
        self.stream(&layer.path).map_or(0, |(_, length)| length)
    }

    /// All images.
    pub(crate) fn images(&self) -> Outcome<Vec<Image>> {
        if self.has(Path::new("manifest.json")) {
            self.of_docker()
        } else if self.has(Path::new("index.json")) {
            self.of_oci()
        } else {
            Err(bad(
                "there is neither a manifest.json nor an index.json: want an archive of docker save, or an OCI layout",
            ))
        }
    }

    /// Whether a manifest, or an index, is of the image with a configuration.
    pub(crate) fn leads_to(&self, from: &Digest, config: &Digest) -> bool {
        /// Of an index that is in an index, at the most.
        const DEPTH: u32 = 4;
        #[derive(Default, Deserialize)]
        struct Document {
            config: Option<Link>,
            #[serde(default)]
            manifests: Vec<Link>,
        }
        #[derive(Deserialize)]
        struct Link {
            digest: Digest,
        }
        fn leads(source: &Source, from: &Digest, config: &Digest, depth: u32) -> bool {
            // Without a blob of this name it is no document, and leads nowhere.
            let document: Document = source.document(&blob(from)).unwrap_or_default();
            let is_its = document.config.is_some_and(|link| link.digest == *config);
            let below =
                |link: &Link| depth < DEPTH && leads(source, &link.digest, config, depth + 1);
            is_its || document.manifests.iter().any(below)
        }
        leads(self, from, config, 0)
    }

    fn of_docker(&self) -> Outcome<Vec<Image>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: PathBuf,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<PathBuf>,
        }
        let entries: Vec<Entry> = self.document(Path::new("manifest.json"))?;
        entries
            .into_iter()
            .map(|entry| {
                let tags = entry.repo_tags.unwrap_or_default();
                let layers = entry.layers.iter().map(|path| clean(path)).collect();
                self.image(&clean(&entry.config), layers, &tags)
            })
            .collect()
    }

    fn of_oci(&self) -> Outcome<Vec<Image>> {
        let index: Index = self.document(Path::new("index.json"))?;
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let named = [
                "io.containerd.image.name",
                "org.opencontainers.image.ref.name",
            ];
            let names: Vec<String> = named
                .iter()
                .filter_map(|key| descriptor.annotations.get(*key).cloned())
                // The second is often a tag alone.
                .filter(|name| name.contains([':', '/']))
                .take(1)
                .collect();
            if let Some(manifest) = self.manifest(descriptor, 0)? {
                let config = blob(&manifest.config.digest);
                let layers = manifest
                    .layers
                    .iter()
                    .map(|layer| blob(&layer.digest))
                    .collect();
                images.push(self.image(&config, layers, &names)?);
            }
        }
        Ok(images)
    }

    /// The manifest behind a descriptor; of an index that for this machine's kind.
    fn manifest(&self, descriptor: &Descriptor, depth: u32) -> Outcome<Option<Manifest>> {
        let path = blob(&descriptor.digest);
        if !descriptor.media_type.contains("index") && !descriptor.media_type.contains("list") {
            return self.document(&path).map(Some);
        }
        if depth > 4 {
            return Err(bad("indexes in indexes"));
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let index: Index = self.document(&path)?;
        let fits = |one: &&Descriptor| {
            one.platform.as_ref().is_none_or(|platform| {
                platform.os == "linux" && platform.architecture == architecture
            })
        };
        match index.manifests.iter().find(fits) {
            Some(one) => self.manifest(one, depth + 1),
            None => Ok(None),
        }
    }

    fn image(&self, config: &Path, layers: Vec<PathBuf>, names: &[String]) -> Outcome<Image> {
        #[derive(Deserialize)]
        struct Config {
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Vec<Digest>,
        }
        let text = self.text(config)?;
        let parsed: Config = serde_json::from_str(&text)
            .map_err(|error| bad(format_args!("{}: {error}", config.display())))?;
        let diff_ids = parsed.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(bad(format_args!(
                "{}: it names {} layers, and there are {}",
                config.display(),
                diff_ids.len(),
                layers.len()
            )));
        }
        let layers = diff_ids.into_iter().zip(layers);
        Ok(Image {
            references: names
                .iter()
                .map(|name| name.parse().map(Reference::or_latest))
                .collect::<types::Result<_>>()
                .map_err(Failure::from)?,
            id: Digest::of(text.as_bytes()),
            config: text,
            layers: layers
                .map(|(diff_id, path)| Layer { diff_id, path })
                .collect(),
        })
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

fn blob(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// Without `.` and `..`.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => cleaned.push(name),
            std::path::Component::ParentDir => drop(cleaned.pop()),
            _ => {}
        }
    }
    cleaned
}

fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// What a stream was before it was compressed, if it was.
pub(super) enum Decompressed<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<flate2::read::MultiGzDecoder<Whole<R>>>),
    Zstd(zstd::Decoder<'static, BufReader<Whole<R>>>),
}

/// A stream with its first bytes put back.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, BufReader<R>>;

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Gzip(stream) => stream.read(buffer),
            Self::Zstd(stream) => stream.read(buffer),
        }
    }
}

pub(super) fn decompressed<R: Read>(stream: R) -> io::Result<Decompressed<R>> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut head = Vec::with_capacity(4);
    Read::by_ref(&mut stream).take(4).read_to_end(&mut head)?;
    let whole = Read::chain(io::Cursor::new(head.clone()), stream);
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Decompressed::Gzip(Box::new(flate2::read::MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => Decompressed::Zstd(zstd::Decoder::new(whole)?),
        _ => Decompressed::Plain(whole),
    })
}
