//! Volumes as directories, and their first filling from an image.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use types::{Result, VolumeName, error::ResultExt as _};

use super::{LocalAgent, blocking};
use crate::{
    NodeAgent as _,
    plan::{MountPlan, MountSource, Plan},
};

impl LocalAgent {
    pub(super) async fn make_volume(&self, name: &VolumeName) -> Result<PathBuf> {
        let path = self.volume_path(name);
        blocking(move || {
            fs::create_dir_all(&path)
                .during(|| format!("creating volume directory {}", path.display()))?;
            Ok(path)
        })
        .await
    }

    /// Removes what a crash left of volumes whose record is gone or never came.
    pub(super) async fn retain_volumes(&self, known: &[VolumeName]) -> Result<()> {
        let (dir, known) = (self.data_dir.join("volumes"), known.to_vec());
        blocking(move || {
            for entry in fs::read_dir(&dir).during(|| format!("listing {}", dir.display()))?.flatten() {
                let name = entry.file_name();
                if !known.iter().any(|volume| name == volume.as_str()) {
                    tracing::info!(volume = %name.to_string_lossy(), "removing what is left of a volume without a record");
                    super::remove_tree(&entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Copies what the image has at a volume's target into the volume while it is empty.
    pub(super) async fn fill_volumes(&self, plan: &Plan) -> Result<()> {
        let wants = |mount: &&MountPlan| matches!(&mount.source, MountSource::Volume { no_copy: false, subpath, .. } if subpath.is_empty());
        let mounts: Vec<(PathBuf, String)> = plan
            .mounts
            .iter()
            .filter(wants)
            .filter_map(|mount| match &mount.source {
                MountSource::Volume { name, .. } => {
                    Some((self.volume_path(name), mount.target.clone()))
                }
                _ => None,
            })
            .collect();
        if mounts.is_empty() {
            return Ok(());
        }
        let agent = self.clone();
        let plan = plan.clone();
        blocking(move || {
            let empty: Vec<_> = mounts
                .into_iter()
                .filter(|(path, _)| is_empty(path))
                .collect();
            if empty.is_empty() {
                return Ok(());
            }
            agent.with_image_root(&plan, move |root| {
                empty
                    .iter()
                    .try_for_each(|(volume, target)| fill(root, target, volume))
            })
        })
        .await
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Copies the directory `target` of a root, its own owner and mode included.
fn fill(root: std::os::fd::BorrowedFd<'_>, target: &str, volume: &Path) -> Result<()> {
    use std::os::fd::AsFd as _;
    let stat = match image::archive::stat(root, target) {
        Ok(stat) => stat,
        Err(error) if error.kind == types::Kind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    /// Go's bit for a directory.
    const GO_DIR: u32 = 1 << 31;
    if stat.mode & GO_DIR == 0 {
        return Ok(());
    }
    let into = fs::File::open(volume)
        .during(|| format!("opening volume directory {}", volume.display()))?;
    let (reader, writer) = std::io::pipe().during(|| "making a pipe")?;
    std::thread::scope(|scope| {
        let from = format!("{}/.", target.trim_end_matches('/'));
        let packing = scope.spawn(move || image::archive::get(root, &from, writer));
        let unpacked = image::archive::put(
            into.as_fd(),
            "/",
            reader,
            image::archive::PutOptions::default(),
        );
        let packed = packing
            .join()
            .unwrap_or_else(|_| Err(types::Error::system("packing a volume's first content")));
        packed.and(unpacked)
    })
}

/// Bytes of the files in a volume, hard links counted once.
pub(super) fn size(dir: &Path) -> Result<u64> {
    let mut total = 0;
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        // Files come and go while they are counted.
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else {
                continue;
            };
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
                total += meta.len();
            }
        }
    }
    Ok(total)
}
