//! The files of this machine that a project's services mount: they are kept in a volume of
//! kraud's, `kr-files-<project>`, at the paths that they have here.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, Metadata},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use chunk::{Cutter, Hash, Prefix, recipe};
use client::{Client, Host};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::{sync::mpsc, task::JoinHandle};
use types::{
    Kind, Role,
    native::{FilePut, VolumeCreate},
};

use super::{Project, ignore::Ignore};
use crate::{
    blocking::blocking,
    exit::{Failure, Outcome},
};

/// Where the volume says what is in it.
const MANIFEST: &str = ".kr-files.json";
/// Bytes of a project's files, unless told otherwise: data belongs into volumes.
pub(crate) const LIMIT: &str = "256M";

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Entry {
    File {
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        /// BLAKE3, hexadecimal.
        hash: String,
    },
    Folder {
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Link {
        to: String,
    },
}

/// All files of a project, by their paths without the first slash.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    files: BTreeMap<String, Entry>,
}

/// A walk through what one mount of a project has.
struct Walk<'a> {
    files: &'a mut Files,
    ignore: Ignore,
    cache: &'a mut Cache,
    root: &'a Path,
    /// Bytes of this mount, and of all so far.
    own: u64,
    bytes: u64,
    limit: u64,
}

impl Walk<'_> {
    /// Files, folders and links of a project, at the most.
    const MOST: usize = 100_000;

    fn too_much(&self, what: &str) -> Failure {
        Failure::usage(format!(
            "the files that the project mounts are more than {what} ({} alone has {} or more): keep data in a volume, leave files out by .dockerignore, or give a larger --upload-limit",
            self.root.display(),
            term::bytes(self.own)
        ))
    }

    fn count(&mut self, bytes: u64) -> Outcome {
        self.own += bytes;
        self.bytes += bytes;
        if self.bytes > self.limit {
            return Err(self.too_much(&term::bytes(self.limit)));
        }
        Ok(())
    }

    fn put(&mut self, key: String, entry: Entry) -> Outcome {
        self.files.files.insert(key, entry);
        if self.files.files.len() > Self::MOST {
            return Err(self.too_much(&format!("{} files", Self::MOST)));
        }
        Ok(())
    }

    fn add(&mut self, path: &Path) -> Outcome {
        let is_root = path == self.root;
        let left_out = !is_root && self.ignore.leaves_out(path);
        let key = key(path);
        // What a root leads to is what docker mounts.
        let facts = if is_root {
            fs::metadata(path)
        } else {
            fs::symlink_metadata(path)
        };
        let facts = match facts {
            // docker makes a folder of what is not there.
            Err(error) if is_root && error.kind() == io::ErrorKind::NotFound => {
                let folder = Entry::Folder {
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                };
                return self.put(key, folder);
            }
            // It was there when its folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(reading(path))?,
        };
        if facts.is_dir() {
            if left_out && !self.ignore.takes_back() {
                return Ok(());
            }
            if !left_out {
                let folder = Entry::Folder {
                    mode: facts.permissions().mode() & 0o7777,
                    uid: facts.uid(),
                    gid: facts.gid(),
                };
                self.put(key, folder)?;
            }
            for entry in fs::read_dir(path).map_err(reading(path))? {
                let entry = entry.map_err(reading(path))?;
                self.add(&entry.path())?;
            }
        } else if left_out {
            return Ok(());
        } else if facts.is_symlink() {
            let to = fs::read_link(path).map_err(reading(path))?;
            let to = to.to_string_lossy().into_owned();
            self.put(key, Entry::Link { to })?;
        } else if facts.is_file() {
            // Before it is read: it may be without an end.
            self.count(facts.len())?;
            let hash = match hash(path, &facts, self.cache) {
                // Editors make files that are gone a moment later.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other.map_err(reading(path))?,
            };
            let file = Entry::File {
                mode: facts.permissions().mode() & 0o7777,
                uid: facts.uid(),
                gid: facts.gid(),
                size: facts.len(),
                hash,
            };
            self.put(key, file)?;
        } else if is_root {
            return Err(Failure::usage(format!(
                "{} is neither a file nor a folder, and cannot be sent",
                path.display()
            )));
        }
        // Sockets, pipes and devices in folders mean nothing on another machine.
        Ok(())
    }
}

/// Hashes of files that have not changed since they were read.
pub(crate) type Cache = HashMap<PathBuf, (SystemTime, u64, u64, String)>;

/// What has to be done so that kraud has the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Paths that are new or other than before.
    pub(crate) sent: Vec<String>,
    pub(crate) removed: Vec<String>,
    /// Bytes of the contents of `sent`.
    pub(crate) bytes: u64,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.removed.is_empty()
    }
}

/// The volume of a project.
pub(crate) fn volume_of(project: &Project) -> String {
    format!("kr-files-{}", project.name)
}

fn reading(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure::io(&format!("reading {}", path.display()), error)
}

impl Files {
    /// The files that the services of a project mount. Fails when they are more than `limit`
    /// bytes, or too many.
    pub(crate) async fn collect(
        project: &Arc<Project>,
        limit: u64,
        mut cache: Cache,
    ) -> Outcome<(Self, Cache)> {
        let project = project.clone();
        blocking(move || Ok((Self::walk(&project, limit, &mut cache)?, cache))).await
    }

    fn walk(project: &Project, limit: u64, cache: &mut Cache) -> Outcome<Self> {
        let mut files = Self::default();
        let mut bytes = 0;
        for root in project.local_paths() {
            let ignore = Ignore::nearest(&root, &project.folder).map_err(reading(&root))?;
            let mut walk = Walk {
                files: &mut files,
                ignore,
                cache,
                root: &root,
                own: 0,
                bytes,
                limit,
            };
            walk.add(&root)?;
            bytes = walk.bytes;
        }
        Ok(files)
    }

    fn bytes(&self) -> u64 {
        let size = |entry: &Entry| match entry {
            Entry::File { size, .. } => *size,
            _ => 0,
        };
        self.files.values().map(size).sum()
    }

    /// What has to be done when kraud has `old`.
    pub(crate) fn change_from(&self, old: &Self) -> Change {
        let mut change = Change::default();
        for (path, entry) in &self.files {
            if old.files.get(path) != Some(entry) {
                change.sent.push(path.clone());
                if let Entry::File { size, .. } = entry {
                    change.bytes += size;
                }
            }
        }
        for path in old
            .files
            .keys()
            .filter(|path| !self.files.contains_key(*path))
        {
            // What is in a folder goes with it.
            let above = |gone: &String| {
                path.strip_prefix(gone.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            if !change.removed.iter().any(above) {
                change.removed.push(path.clone());
            }
        }
        change
    }

    /// The files of a project that kraud has.
    pub(crate) async fn there(client: &Client, project: &Project) -> Outcome<Self> {
        let archive = client
            .volume_archive_get(&volume_of(project), None, MANIFEST)
            .await;
        let Some(mut archive) = missing_is_none(archive)? else {
            return Ok(Self::default());
        };
        let mut bytes = Vec::new();
        archive
            .tar
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| Failure::io("reading what kraud has of the project's files", error))?;
        let read = || -> io::Result<Self> {
            let mut archive = tar::Archive::new(bytes.as_slice());
            let mut text = String::new();
            for entry in archive.entries()? {
                entry?.read_to_string(&mut text)?;
            }
            Ok(serde_json::from_str(&text)?)
        };
        // Nobody else writes it; a broken one only costs sending all again.
        Ok(read().unwrap_or_default())
    }

    /// Sends what has changed since `old`; removes what is gone. Returns the bytes that were sent.
    pub(crate) async fn send(
        &self,
        client: &Client,
        project: &Project,
        old: &Self,
        change: &Change,
    ) -> Outcome<u64> {
        let mut sent_bytes = 0;
        let volume = volume_of(project);
        self.ensure_volume(client, project, &volume).await?;
        for path in &change.removed {
            client.volume_file_remove(&volume, path).await?;
        }
        let roots: HashSet<String> = project.local_paths().iter().map(|path| key(path)).collect();
        let mut packed = Vec::new();
        for path in &change.sent {
            let patched = match (old.files.get(path), self.files.get(path)) {
                (Some(Entry::File { .. }), Some(entry)) => {
                    patch(client, &volume, path, entry, roots.contains(path)).await?
                }
                _ => None,
            };
            match patched {
                Some(bytes) => sent_bytes += bytes,
                None => packed.push(path.clone()),
            }
        }
        let packed = {
            let (files, sent) = (self.clone(), packed);
            blocking(move || files.pack(&sent)).await?
        };
        sent_bytes += length(&packed)?;
        let (body, reading) = body_of(packed);
        client.volume_archive_put(&volume, "/", body).await?;
        let _ = reading.await;
        Ok(sent_bytes)
    }

    /// A tar, compressed, of some of the files and of the list of all.
    fn pack(&self, sent: &[String]) -> Outcome<File> {
        let packing = |error| Failure::io("packing the project's files", error);
        let file = tempfile::tempfile().map_err(packing)?;
        let mut builder = tar::Builder::new(zstd::Encoder::new(file, 3).map_err(packing)?);
        for path in sent {
            let Some(entry) = self.files.get(path) else {
                continue;
            };
            let place = Path::new("/").join(path);
            self.pack_one(&mut builder, path, entry)
                .map_err(reading(&place))?;
        }
        let manifest = serde_json::to_vec(self).map_err(|error| packing(error.into()))?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(manifest.len() as u64);
        builder
            .append_data(&mut header, MANIFEST, manifest.as_slice())
            .map_err(packing)?;
        let mut file = builder
            .into_inner()
            .and_then(zstd::Encoder::finish)
            .map_err(packing)?;
        file.seek(SeekFrom::Start(0)).map_err(packing)?;
        Ok(file)
    }

    fn pack_one<W: io::Write>(
        &self,
        builder: &mut tar::Builder<W>,
        path: &str,
        entry: &Entry,
    ) -> io::Result<()> {
        let place = Path::new("/").join(path);
        let mut header = tar::Header::new_gnu();
        let mut owned = |kind, mode, uid: u32, gid: u32| {
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(known_id(uid).into());
            header.set_gid(known_id(gid).into());
            let modified = fs::metadata(&place).map_or(0, |facts| facts.mtime().max(0));
            header.set_mtime(modified as u64);
        };
        match entry {
            Entry::Folder { mode, uid, gid } => {
                owned(tar::EntryType::Directory, *mode, *uid, *gid);
                header.set_size(0);
                builder.append_data(&mut header, path, io::empty())
            }
            Entry::Link { to } => {
                owned(tar::EntryType::Symlink, 0o777, 0, 0);
                header.set_size(0);
                builder.append_link(&mut header, path, to)
            }
            Entry::File {
                mode,
                uid,
                gid,
                size,
                ..
            } => {
                owned(tar::EntryType::Regular, *mode, *uid, *gid);
                header.set_size(*size);
                // As many bytes as were counted, whatever has become of the file.
                let content = File::open(&place)?
                    .take(*size)
                    .chain(io::repeat(0))
                    .take(*size);
                builder.append_data(&mut header, path, content)
            }
        }
    }

    /// Makes the project's volume, or makes it larger; where a quota wants sizes it has one.
    async fn ensure_volume(&self, client: &Client, project: &Project, volume: &str) -> Outcome {
        let needed = (self.bytes() * 2 + self.files.len() as u64 * 4096).max(16 << 20);
        if let Some(there) = missing_is_none(client.volume(volume).await)? {
            if there.size.is_some_and(|size| size < needed) {
                client.volume_resize(volume, needed).await?;
            }
            return Ok(());
        }
        let mut wanted = VolumeCreate {
            name: Some(volume.to_owned()),
            labels: BTreeMap::from([(
                "com.docker.compose.project".to_owned(),
                project.name.clone(),
            )]),
            ..VolumeCreate::default()
        };
        match client.volume_create(&wanted).await {
            Err(client::Error::Api(error)) if error.kind == Kind::Forbidden => {
                wanted.options.insert("size".to_owned(), needed.to_string());
                client.volume_create(&wanted).await?;
            }
            other => drop(other?),
        }
        Ok(())
    }
}

/// What a path is called in the volume.
fn key(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// Sends of a file that kraud has what is new in it, and returns the bytes that were sent; `None`
/// when it has to be sent as a whole.
///
/// A file that is mounted by itself is changed in its place: a container that has it mounted sees
/// the new content. Of others only large ones are worth the questions.
async fn patch(
    client: &Client,
    volume: &str,
    path: &str,
    entry: &Entry,
    in_place: bool,
) -> Outcome<Option<u64>> {
    /// Bytes.
    const LARGE: u64 = 512 << 10;
    let Entry::File {
        mode,
        uid,
        gid,
        size,
        hash,
    } = entry
    else {
        return Ok(None);
    };
    let large = *size >= LARGE;
    if !in_place && !large {
        return Ok(None);
    }
    let place = Path::new("/").join(path);
    let mut known = HashMap::new();
    if large {
        let Some(chunks) = unfit_is_none(client.volume_file_chunks(volume, path).await)? else {
            return Ok(None);
        };
        let prefixes = Prefix::many(&chunks).unwrap_or_default();
        known.extend((0..).zip(prefixes).map(|(number, prefix)| (prefix, number)));
    }
    let (modified, recipe) = {
        let from = place.clone();
        let packing = move || -> io::Result<(SystemTime, File)> {
            let file = File::open(&from)?;
            let modified = file.metadata()?.modified()?;
            Ok((modified, recipe_of(file, &known)?))
        };
        tokio::task::spawn_blocking(packing)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(reading(&place))?
    };
    let since = modified.duration_since(SystemTime::UNIX_EPOCH);
    let wanted = FilePut {
        path: path.to_owned(),
        mode: *mode,
        uid: known_id(*uid),
        gid: known_id(*gid),
        mtime: since.map_or(0, |since| since.as_secs() as i64),
        size: *size,
        hash: hash.clone(),
        in_place,
    };
    let bytes = length(&recipe)?;
    let (body, reading) = body_of(recipe);
    let put = client.volume_file_put(volume, &wanted, body).await;
    let _ = reading.await;
    Ok(unfit_is_none(put)?.map(|()| bytes))
}

fn length(packed: &File) -> Outcome<u64> {
    let facts = packed.metadata();
    Ok(facts
        .map_err(|error| Failure::io("packing files", error))?
        .len())
}

/// Ids that only this machine has are nobody's there.
fn known_id(id: u32) -> u32 {
    const NOBODY: u32 = 65_534;
    if id < 65_536 { id } else { NOBODY }
}

/// A file as the numbers of chunks that are known, and what lies between.
fn recipe_of(file: File, known: &HashMap<Prefix, u64>) -> io::Result<File> {
    let mut writer = recipe::Writer::new(zstd::Encoder::new(tempfile::tempfile()?, 3)?);
    Cutter::default().cut(file, |bytes| match known.get(&Hash::of(bytes).prefix()) {
        Some(number) => writer.known(*number, bytes.len() as u32),
        None => writer.bytes(bytes),
    })?;
    let mut recipe = writer.finish()?.finish()?;
    recipe.rewind()?;
    Ok(recipe)
}

/// `None` where the file is not, or not any more, what it was taken for.
fn unfit_is_none<T>(result: client::Result<T>) -> Outcome<Option<T>> {
    let unfit = [Kind::NotFound, Kind::Conflict, Kind::InvalidParameter];
    match result {
        Err(client::Error::Api(error)) if unfit.contains(&error.kind) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// A file as the body of a request, and what reads it.
fn body_of(
    mut file: File,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<()>,
) {
    let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(4);
    let reading = tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; 256 << 10];
            match file.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    if sender.blocking_send(Ok(piece.into())).is_err() {
                        return;
                    }
                }
                Err(error) => return drop(sender.blocking_send(Err(error))),
            }
        }
    });
    (
        stream::poll_fn(move |context| pieces.poll_recv(context)),
        reading,
    )
}

fn missing_is_none<T>(result: client::Result<T>) -> Outcome<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(client::Error::Api(error)) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn hash(path: &Path, facts: &Metadata, cache: &mut Cache) -> io::Result<String> {
    let modified = facts.modified()?;
    if let Some((then, size, inode, hash)) = cache.get(path)
        && (*then, *size, *inode) == (modified, facts.len(), facts.ino())
    {
        return Ok(hash.clone());
    }
    let file = File::open(path)?;
    // As much as was counted: some files of the kernel's go on for ever.
    let (hash, _) = Hash::of_stream(file.take(facts.len()))?;
    let hash = hash.to_hex();
    cache.insert(
        path.to_owned(),
        (modified, facts.len(), facts.ino(), hash.clone()),
    );
    Ok(hash)
}

/// Sends what has changed of a project's files, and says so; with `dry_run` it only says.
pub(crate) async fn upload(
    client: &Client,
    project: &Arc<Project>,
    limit: u64,
    dry_run: bool,
) -> Outcome {
    if are_there(client) || project.local_paths().is_empty() {
        return Ok(());
    }
    if client.whoami().await?.role == Role::Operator {
        eprintln!(
            "files: not sent; in the operator's namespace their paths are those of the server"
        );
        return Ok(());
    }
    let (now, _) = Files::collect(project, limit, Cache::new()).await?;
    let old = Files::there(client, project).await?;
    let change = now.change_from(&old);
    if change.is_empty() {
        eprintln!("files: nothing has changed");
        return Ok(());
    }
    eprintln!(
        "files: {} to send ({}), {} to remove",
        change.sent.len(),
        term::bytes(change.bytes),
        change.removed.len()
    );
    if dry_run {
        return Ok(());
    }
    let sent = now.send(client, project, &old, &change).await?;
    eprintln!("files: sent {}", term::bytes(sent));
    Ok(())
}

/// Whether the files are on kraud's machine as they are: then nothing is sent.
pub(crate) fn are_there(client: &Client) -> bool {
    matches!(client.host(), Host::Unix(_))
}
