//! `docker cp` and `docker export`.

use std::{
    io::Write,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
};

use tokio::io::AsyncReadExt as _;
use tokio_util::io::SyncIoBridge;
use types::{Error, Result, error::ResultExt as _};

use super::{LocalAgent, blocking};
use crate::{PathStat, Plan, Reader};

/// Bytes between a packing thread and whoever reads.
const PIPE: usize = 256 << 10;

impl LocalAgent {
    pub(super) async fn stat_path(&self, plan: &Plan, path: &str) -> Result<PathStat> {
        let (agent, plan, path) = (self.clone(), plan.clone(), path.to_owned());
        blocking(move || agent.with_root(&plan, |root| image::archive::stat(root.fd, &path)))
            .await
            .map(path_stat)
    }

    pub(super) async fn get_archive(&self, plan: &Plan, path: &str) -> Result<(PathStat, Reader)> {
        let stat = self.stat_path(plan, path).await?;
        let (agent, plan, path) = (self.clone(), plan.clone(), path.to_owned());
        let reader = packed(move |writer| {
            agent.with_root(&plan, |root| {
                image::archive::get(root.fd, &path, root.seen_by, writer)
            })
        });
        Ok((stat, reader))
    }

    pub(super) async fn export_root(&self, plan: &Plan) -> Result<Reader> {
        let (agent, plan) = (self.clone(), plan.clone());
        // Volumes are not part of the root file system.
        Ok(packed(move |writer| {
            agent.with_image_root(&plan, |root| {
                image::archive::export(root.fd, root.seen_by, writer)
            })
        }))
    }

    pub(super) async fn put_archive(
        &self,
        plan: &Plan,
        path: &str,
        tar: Reader,
        strict: bool,
        copy_owner: bool,
    ) -> Result<()> {
        let (agent, plan, path) = (self.clone(), plan.clone(), path.to_owned());
        let handle = tokio::runtime::Handle::current();
        let read_only = plan.host.readonly_rootfs
            && !plan
                .mounts
                .iter()
                .any(|mount| Path::new(&path).starts_with(&mount.target));
        if read_only {
            return Err(Error::forbidden("container rootfs is marked read-only"));
        }
        blocking(move || {
            agent.with_root(&plan, |root| {
                let owner = if copy_owner {
                    owner(&plan, root.fd)?
                } else {
                    None
                };
                let options = image::archive::PutOptions {
                    no_overwrite_dir_non_dir: strict,
                    owner,
                    seen_by: root.seen_by,
                };
                let tar = SyncIoBridge::new_with_handle(tar, handle);
                image::archive::put(root.fd, &path, tar, options)
            })
        })
        .await
    }
}

/// The container's own user, for `docker cp -a`.
fn owner(plan: &Plan, root: BorrowedFd<'_>) -> Result<Option<(u32, u32)>> {
    if plan.config.user.is_empty() {
        return Ok(None);
    }
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    let user =
        runtime::user::resolve(Path::new(&root), &plan.config.user, &[]).map_err(Error::from)?;
    Ok(Some((user.uid, user.gid)))
}

pub(super) fn path_stat(stat: image::archive::PathStat) -> PathStat {
    PathStat {
        name: stat.name,
        size: stat.size,
        mode: stat.mode,
        mtime: stat.mtime,
        link_target: stat.link_target,
    }
}

/// Runs `pack` on a thread of its own and gives what it writes. When it fails the stream
/// ends with the error, so that nobody takes a broken archive for a whole one.
pub(super) fn packed(
    pack: impl FnOnce(Box<dyn Write + Send>) -> Result<()> + Send + 'static,
) -> Reader {
    let (reader, writer) = tokio::io::duplex(PIPE);
    let (done, outcome) = tokio::sync::oneshot::channel();
    let bridge = SyncIoBridge::new(writer);
    tokio::task::spawn_blocking(move || {
        let result = pack(Box::new(std::io::BufWriter::with_capacity(
            PIPE / 4,
            bridge,
        )));
        let _ = done.send(result);
    });
    Box::pin(reader.chain(End {
        outcome: Some(outcome),
    }))
}

/// Reads as nothing, or as the error that the packing ended with.
struct End {
    outcome: Option<tokio::sync::oneshot::Receiver<Result<()>>>,
}

impl tokio::io::AsyncRead for End {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let Some(outcome) = self.outcome.as_mut() else {
            return std::task::Poll::Ready(Ok(()));
        };
        let outcome = std::task::ready!(std::pin::Pin::new(outcome).poll(context));
        self.outcome = None;
        let result = outcome
            .during(|| "packing an archive")
            .and_then(|result| result);
        std::task::Poll::Ready(result.map_err(std::io::Error::other))
    }
}
