//! Root file systems of containers: overlay mounts of layers.
//!
//! Blocking; call from a thread that may block.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
    },
};
use types::{Digest, Error, Result, error::ResultExt as _};
use userns::UserNamespace;

use crate::{fsutil::open_dir, layers::LayerStore};

/// docker's limit; the kernel's own is 500.
pub(crate) const MAX_LAYERS: usize = 125;
/// The kernel takes strings of one `fsconfig` call up to here.
const MAX_OPTION: usize = 255;
/// The kernel takes one page of options of `mount`.
const MAX_DATA: usize = 4095;

/// A root file system to mount.
#[derive(Debug, Clone)]
pub struct RootfsSpec {
    /// Lowest first; may be empty.
    pub layers: Vec<Digest>,
    /// Takes what is written. Must exist.
    pub upper: PathBuf,
    /// The overlay's own scratch directory, on the same file system as `upper`. Must exist.
    pub work: PathBuf,
    /// Where it is mounted. Must exist.
    pub target: PathBuf,
    /// Never synchronise to disk: for containers that are removed when they exit.
    pub volatile: bool,
    /// Whose eyes owners are seen with; `None` for the machine's. `upper` and `work` are then in
    /// one directory.
    pub users: Option<Users>,
}

/// A user namespace that a root file system is for.
#[derive(Debug, Clone)]
pub struct Users {
    pub namespace: Arc<UserNamespace>,
    /// A directory for mounts that last no longer than the call, made where needed.
    pub scratch: PathBuf,
}

/// The options that every root file system has.
///
/// No index and no metacopy, so that layers stay plain directories. Redirects are neither
/// made nor followed: what a container renames is a full copy that `commit` and `diff` see.
const OPTIONS: &[(&str, &str)] = &[
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
];

/// What a directory is called in mount options.
struct Place {
    text: String,
    /// Closed, or unmounted, when the options have been read.
    _open: Option<OwnedFd>,
    _attached: Option<Attached>,
}

impl Place {
    /// A path, or where that is too long a short name for the open directory.
    fn new(dir: &Path, longest: usize) -> io::Result<Self> {
        // A colon or comma would end the path, a backslash is an escape.
        match dir.to_str() {
            Some(text) if text.len() <= longest && !text.contains([':', ',', '\\']) => Ok(Self {
                text: text.to_owned(),
                _open: None,
                _attached: None,
            }),
            _ => Ok(Self::of(open_dir(dir)?)),
        }
    }

    fn of(dir: OwnedFd) -> Self {
        Self {
            text: format!("/proc/self/fd/{}", dir.as_raw_fd()),
            _open: Some(dir),
            _attached: None,
        }
    }
}

/// A mount in a scratch directory.
struct Attached(PathBuf);

impl Attached {
    fn new(mount: OwnedFd, at: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&at).during(|| format!("creating {}", at.display()))?;
        userns::attach(mount.as_fd(), &at)?;
        Ok(Self(at))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let gone = unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(io::Error::from)
            .and_then(|()| std::fs::remove_dir(&self.0));
        if let Err(error) = gone {
            tracing::warn!(path = %self.0.display(), %error, "a mount that is not needed any more stays until its container ends");
        }
    }
}

/// The directories of an overlay.
struct Places {
    /// Highest first.
    lowers: Vec<Place>,
    upper: Place,
    work: Place,
    /// What the last two are in, if it is not the file system as it is.
    _writable: Option<Place>,
}

impl Places {
    fn plain(lowers: &[PathBuf], spec: &RootfsSpec, longest: usize) -> io::Result<Self> {
        let lowers = lowers.iter().map(|lower| Place::new(lower, longest));
        Ok(Self {
            lowers: lowers.collect::<io::Result<_>>()?,
            upper: Place::new(&spec.upper, longest)?,
            work: Place::new(&spec.work, longest)?,
            _writable: None,
        })
    }

    /// With owners as `users` see them. The kernel takes detached mounts from 6.15 on; for others
    /// they are attached meanwhile.
    fn mapped(
        lowers: &[PathBuf],
        spec: &RootfsSpec,
        users: &Users,
        attached: bool,
    ) -> Result<Self> {
        let mut count = 0;
        let mut place = |dir: &Path| -> Result<Place> {
            let mount = users.namespace.mapped(dir)?;
            if !attached {
                return Ok(Place::of(mount));
            }
            count += 1;
            let attached = Attached::new(mount, users.scratch.join(format!("layer{count}")))?;
            let dir = open_dir(&attached.0).during(|| format!("opening {}", dir.display()))?;
            Ok(Place {
                _attached: Some(attached),
                ..Place::of(dir)
            })
        };
        let parent = spec.upper.parent().unwrap_or(&spec.upper);
        let writable = place(parent)?;
        let within = |dir: &Path| -> Result<Place> {
            let name = dir
                .strip_prefix(parent)
                .during(|| format!("finding {} in {}", dir.display(), parent.display()))?;
            Ok(Place {
                text: format!("{}/{}", writable.text, name.display()),
                _open: None,
                _attached: None,
            })
        };
        let (upper, work) = (within(&spec.upper)?, within(&spec.work)?);
        Ok(Self {
            lowers: lowers
                .iter()
                .map(|lower| place(lower))
                .collect::<Result<_>>()?,
            upper,
            work,
            _writable: Some(writable),
        })
    }
}

impl LayerStore {
    /// The directories under a root file system, highest first.
    pub(crate) fn lower_dirs(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        if layers.len() > MAX_LAYERS {
            return Err(Error::invalid(format!(
                "max depth exceeded: {} layers, the limit is {MAX_LAYERS}",
                layers.len()
            )));
        }
        if let Some(missing) = layers.iter().find(|layer| !self.contains(layer)) {
            return Err(Error::not_found(format!("layer {missing} does not exist")));
        }
        Ok(layers
            .iter()
            .rev()
            .map(|layer| self.tree(layer))
            .chain([self.base()])
            .collect())
    }

    /// Mounts a root file system.
    ///
    /// Beneath the image lies a layer of kraud's own with `/proc`, `/dev`, `/etc/hosts` and
    /// their like, so that mounting onto them changes nothing in `upper`.
    pub fn mount_rootfs(&self, spec: &RootfsSpec) -> Result<()> {
        let lowers = self.lower_dirs(&spec.layers)?;
        let mounting = || format!("mounting the root file system {}", spec.target.display());
        if spec.volatile {
            // The kernel leaves this mark to warn of lost writes; here they do not matter.
            let _ = std::fs::remove_dir_all(spec.work.join("work/incompat"));
        }
        let by_parts = |places: &Places| match mount_by_parts(places, spec) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
            other => other.during(mounting).map(|()| true),
        };
        let Some(users) = &spec.users else {
            return match by_parts(&Places::plain(&lowers, spec, MAX_OPTION).during(mounting)?)? {
                true => Ok(()),
                false => mount_at_once(&plain_at_once(&lowers, spec).during(mounting)?, spec)
                    .during(mounting),
            };
        };
        users.namespace.as_root(|| {
            if by_parts(&Places::mapped(&lowers, spec, users, false)?)? {
                return Ok(());
            }
            let attached = Places::mapped(&lowers, spec, users, true)?;
            if by_parts(&attached)? {
                return Ok(());
            }
            mount_at_once(&attached, spec).during(mounting)
        })
    }

    /// Unmounts what [`LayerStore::mount_rootfs`] mounted at `target`. Not mounted is fine.
    pub fn unmount_rootfs(&self, target: &Path) -> Result<()> {
        // Lazily: a process that still has a file open keeps its view, nobody new gets one.
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::wrap(
                format_args!("unmounting {}", target.display()),
                error,
            )),
        }
    }
}

/// With the mount calls of Linux 5.2, each lower directory an option of its own (6.8).
fn mount_by_parts(places: &Places, spec: &RootfsSpec) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set_dir = |option: &str, place: &Place| {
        fsconfig_set_string(context.as_fd(), option, place.text.as_str())
    };
    for lower in &places.lowers {
        set_dir("lowerdir+", lower)?;
    }
    set_dir("upperdir", &places.upper)?;
    set_dir("workdir", &places.work)?;
    for (option, value) in OPTIONS {
        fsconfig_set_string(context.as_fd(), *option, *value)?;
    }
    if spec.volatile {
        rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile")?;
    }
    fsconfig_create(context.as_fd())?;
    // A device node in an image or an archive opens nothing: such containers cannot make any, and
    // need none but those in their /dev.
    let attributes = match spec.users {
        Some(_) => MountAttrFlags::MOUNT_ATTR_NODEV,
        None => MountAttrFlags::empty(),
    };
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        mounted.as_fd(),
        "",
        CWD,
        &spec.target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Short enough for [`mount_at_once`].
fn plain_at_once(lowers: &[PathBuf], spec: &RootfsSpec) -> io::Result<Places> {
    let whole: usize = lowers.iter().map(|lower| lower.as_os_str().len() + 1).sum();
    let rest = spec.upper.as_os_str().len() + spec.work.as_os_str().len() + 128;
    // Too long: every directory by the number of its open file.
    let fits = whole + rest <= MAX_DATA;
    Places::plain(lowers, spec, if fits { usize::MAX } else { 0 })
}

/// With `mount(2)`: all options in one string.
fn mount_at_once(places: &Places, spec: &RootfsSpec) -> io::Result<()> {
    let lower = places
        .lowers
        .iter()
        .map(|place| place.text.as_str())
        .collect::<Vec<_>>()
        .join(":");
    let mut data = format!(
        "lowerdir={lower},upperdir={},workdir={}",
        places.upper.text, places.work.text
    );
    for (option, value) in OPTIONS {
        data.push_str(&format!(",{option}={value}"));
    }
    if spec.volatile {
        data.push_str(",volatile");
    }
    if data.len() > MAX_DATA {
        return Err(io::Error::other(
            "the mount options do not fit: too many layers for this kernel",
        ));
    }
    let data = CString::new(data)?;
    Ok(mount(
        "overlay",
        spec.target.as_os_str().as_bytes(),
        "overlay",
        match spec.users {
            Some(_) => MountFlags::NODEV,
            None => MountFlags::empty(),
        },
        Some(data.as_c_str()),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older kernels take all directories in one string of limited length.
    #[test]
    fn many_long_names_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let lowers: Vec<PathBuf> = (0..MAX_LAYERS + 1)
            .map(|index| make(format!("{}/with:colon/{index}", "long".repeat(30))))
            .collect();
        std::fs::write(lowers[0].join("highest"), "").unwrap();
        std::fs::write(lowers[MAX_LAYERS].join("lowest"), "").unwrap();
        let spec = RootfsSpec {
            layers: Vec::new(),
            upper: make("upper".into()),
            work: make("work".into()),
            target: make("target".into()),
            volatile: true,
            users: None,
        };
        let check = || {
            let there = ["highest", "lowest"].map(|name| spec.target.join(name).exists());
            unmount(&spec.target, UnmountFlags::DETACH).unwrap();
            there
        };
        mount_at_once(&plain_at_once(&lowers, &spec).unwrap(), &spec).unwrap();
        assert_eq!(check(), [true, true]);
        std::fs::remove_dir_all(spec.work.join("work/incompat")).unwrap();
        let places = Places::plain(&lowers, &spec, MAX_OPTION).unwrap();
        mount_by_parts(&places, &spec).unwrap();
        assert_eq!(check(), [true, true]);
    }

    /// Containers of tenants see their own owners, on disk they are root's: on new kernels and
    /// on those that want mounts to be attached.
    #[test]
    fn mapped_owners() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let ids = types::IdRange::of_tenant(7).unwrap();
        let spaces = userns::UserNamespaces::open(dir.path()).unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let lowers = [make("lower/a"), make("lower/b")];
        std::fs::write(lowers[0].join("file"), "old").unwrap();
        std::os::unix::fs::chown(lowers[0].join("file"), Some(5), Some(6)).unwrap();
        let users = Users {
            namespace: spaces.ensure("shop", ids).unwrap(),
            scratch: make("scratch"),
        };
        for attached in [false, true] {
            let name = format!("container{attached}");
            let spec = RootfsSpec {
                layers: Vec::new(),
                upper: make(&format!("{name}/upper")),
                work: make(&format!("{name}/work")),
                target: make("target"),
                volatile: false,
                users: Some(users.clone()),
            };
            let mounted = users.namespace.as_root(|| {
                let places = Places::mapped(&lowers, &spec, &users, attached)?;
                if attached {
                    mount_at_once(&places, &spec).during(|| "at once")?;
                    return Ok(true);
                }
                match mount_by_parts(&places, &spec) {
                    // A kernel before 6.15.
                    Err(Errno::INVAL) => Ok(false),
                    other => other.during(|| "by parts").map(|()| true),
                }
            });
            if !mounted.unwrap() {
                continue;
            }
            assert_eq!(std::fs::read_dir(&users.scratch).unwrap().count(), 0);
            let file = spec.target.join("file");
            let seen = std::fs::metadata(&file).unwrap();
            assert_eq!((seen.uid(), seen.gid()), (ids.first + 5, ids.first + 6));
            std::fs::write(&file, "new").unwrap();
            users
                .namespace
                .as_root(|| std::fs::create_dir(spec.target.join("made")).during(|| "making"))
                .unwrap();
            let kept = |name| {
                let kept = std::fs::metadata(spec.upper.join(name)).unwrap();
                (kept.uid(), kept.gid())
            };
            assert_eq!((kept("file"), kept("made")), ((5, 6), (0, 0)));
            unmount(&spec.target, UnmountFlags::DETACH).unwrap();
        }
        drop(users);
        spaces.remove_all().unwrap();
    }
}
