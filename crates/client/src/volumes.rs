//! `/volumes`.

use std::{io, pin::Pin};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http_body_util::BodyExt as _;
use hyper::Method;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use types::native::{
    Change, ChangeList, FileEntry, FileList, FilePut, PATH_STAT, PathStat, Rollback,
    RollbackRequest, Volume, VolumeClone, VolumeCreate, VolumeList, VolumeResize,
};

use crate::{
    Client, Result,
    call::{Answer, or_none, stream},
};

/// A path of a volume as a tar archive. The root of the archive is the path's last name.
pub struct Archive {
    /// What the path is.
    pub stat: PathStat,
    /// The archive. It ends with an error when kraud could not make all of it.
    pub tar: Pin<Box<dyn AsyncRead + Send>>,
}

/// Parameters without those that have no value.
fn given<'a>(pairs: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    pairs
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)))
        .collect()
}

impl Client {
    /// All volumes, sorted by name.
    pub async fn volumes(&self) -> Result<Vec<Volume>> {
        let list: VolumeList = self.get(&["volumes"], &[]).await?;
        Ok(list.volumes)
    }

    /// One volume.
    pub async fn volume(&self, name: &str) -> Result<Volume> {
        self.get(&["volumes", name], &[]).await
    }

    /// Makes a volume; one that exists with the same class is given back as it is.
    pub async fn volume_create(&self, wanted: &VolumeCreate) -> Result<Volume> {
        self.post(&["volumes"], wanted).await
    }

    /// Removes a volume with its snapshots. With `force` it may be missing.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let query: &[_] = if force { &[("force", "1")] } else { &[] };
        self.delete(&["volumes", name], query).await
    }

    /// Removes a file or a directory of a volume; one that is not there is fine.
    pub async fn volume_file_remove(&self, name: &str, path: &str) -> Result<()> {
        self.delete(&["volumes", name, "files"], &[("path", path)])
            .await
    }

    /// Makes a volume larger.
    pub async fn volume_resize(&self, name: &str, size: u64) -> Result<Volume> {
        self.post(&["volumes", name, "resize"], &VolumeResize { size })
            .await
    }

    /// Makes an independent copy.
    pub async fn volume_clone(&self, source: &str, wanted: &VolumeClone) -> Result<Volume> {
        self.post(&["volumes", source, "clone"], wanted).await
    }

    /// Makes a volume's content that of a snapshot.
    pub async fn volume_rollback(&self, name: &str, wanted: &RollbackRequest) -> Result<Rollback> {
        self.post(&["volumes", name, "rollback"], wanted).await
    }

    /// What changed from a snapshot to another, or to now.
    pub async fn volume_diff(
        &self,
        name: &str,
        from: &str,
        to: Option<&str>,
    ) -> Result<Vec<Change>> {
        let query = given(&[("from", Some(from)), ("to", to)]);
        let list: ChangeList = self.get(&["volumes", name, "diff"], &query).await?;
        Ok(list.changes)
    }

    /// The entries of a directory of a volume or of a snapshot.
    pub async fn volume_files(
        &self,
        name: &str,
        snapshot: Option<&str>,
        path: &str,
    ) -> Result<Vec<FileEntry>> {
        let query = given(&[("path", Some(path)), ("snapshot", snapshot)]);
        let list: FileList = self.get(&["volumes", name, "files"], &query).await?;
        Ok(list.files)
    }

    /// What a path of a volume is; `None` when there is nothing.
    pub async fn volume_stat(
        &self,
        name: &str,
        snapshot: Option<&str>,
        path: &str,
    ) -> Result<Option<PathStat>> {
        let query = given(&[("path", Some(path)), ("snapshot", snapshot)]);
        let stat = self.get(&["volumes", name, "stat"], &query).await;
        or_none(stat)
    }

    /// A path of a volume or of a snapshot as a tar.
    pub async fn volume_archive_get(
        &self,
        name: &str,
        snapshot: Option<&str>,
        path: &str,
    ) -> Result<Archive> {
        let query = given(&[("path", Some(path)), ("snapshot", snapshot)]);
        let Answer { call, response } = self
            .send(Method::GET, &["volumes", name, "archive"], &query, None)
            .await?;
        let stat = response
            .headers()
            .get(PATH_STAT)
            .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
            .and_then(|text| serde_json::from_slice(&text).ok())
            .ok_or_else(|| {
                self.unexpected(&call, "the answer does not say what the path is".into())
            })?;
        let pieces = response.into_body().into_data_stream();
        Ok(Archive {
            stat,
            tar: Box::pin(StreamReader::new(pieces.map_err(io::Error::other))),
        })
    }

    /// The starts of the hashes of a file's chunks, six bytes each.
    pub async fn volume_file_chunks(&self, name: &str, path: &str) -> Result<Bytes> {
        let answer = self
            .send(
                Method::GET,
                &["volumes", name, "chunks"],
                &[("path", path)],
                None,
            )
            .await?;
        self.octets(answer).await
    }

    /// Changes a file that is there, of a recipe that numbers its chunks.
    pub async fn volume_file_put(
        &self,
        name: &str,
        file: &FilePut,
        recipe: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let file = serde_json::to_string(file)
            .map_err(|error| self.unexpected("PUT", format!("encoding the request: {error}")))?;
        self.send(
            Method::PUT,
            &["volumes", name, "file"],
            &[("file", &file)],
            Some(("application/octet-stream", stream(recipe))),
        )
        .await
        .map(drop)
    }

    /// Unpacks a tar into a directory of a volume, which must exist.
    pub async fn volume_archive_put(
        &self,
        name: &str,
        path: &str,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        self.send(
            Method::PUT,
            &["volumes", name, "archive"],
            &[("path", path)],
            Some(("application/x-tar", stream(tar))),
        )
        .await
        .map(drop)
    }
}
