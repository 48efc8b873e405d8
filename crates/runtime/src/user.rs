//! Who a process is: `--user` and `--group-add` against the container's own passwd and
//! group files, which are never followed out of its root.

use std::{fs::File, io::Read as _, path::Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// Highest user and group id (as in docker).
const MAX_ID: u32 = (1 << 31) - 1;
/// More than any sane passwd or group file.
const MAX_FILE: u64 = 16 << 20;

/// The numbers behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub additional_gids: Vec<u32>,
    /// The home directory in passwd, else `/`.
    pub home: String,
}

impl Default for ResolvedUser {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            additional_gids: vec![0],
            home: "/".into(),
        }
    }
}

/// Resolves `spec` (`user`, `user:group`, numbers, or empty for root) and the groups of
/// `group_add` beneath the root file system `rootfs`.
pub fn resolve(rootfs: &Path, spec: &str, group_add: &[String]) -> Result<ResolvedUser> {
    resolve_in(
        &read(rootfs, "etc/passwd")?,
        &read(rootfs, "etc/group")?,
        spec,
        group_add,
    )
}

/// The same on the texts of the two files.
pub fn resolve_in(
    passwd: &str,
    group: &str,
    spec: &str,
    group_add: &[String],
) -> Result<ResolvedUser> {
    let (user, primary) = spec.split_once(':').unwrap_or((spec, ""));
    let found = find_user(passwd, user)?;
    let mut resolved = ResolvedUser {
        uid: found.uid,
        gid: found.gid,
        additional_gids: Vec::new(),
        home: found.home.to_owned(),
    };
    if !primary.is_empty() {
        resolved.gid = find_group(group, primary, "unable")?;
    } else if let Some(name) = found.name {
        let member = |entry: &Group<'_>| entry.members.split(',').any(|member| member == name);
        resolved
            .additional_gids
            .extend(groups(group).filter(member).map(|entry| entry.gid));
    }
    resolved.additional_gids.insert(0, resolved.gid);
    for wanted in group_add {
        resolved
            .additional_gids
            .push(find_group(group, wanted, "Unable")?);
    }
    let mut seen = std::collections::HashSet::new();
    resolved.additional_gids.retain(|gid| seen.insert(*gid));
    Ok(resolved)
}

struct User<'a> {
    /// `None` when there is no entry for the number.
    name: Option<&'a str>,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, uid, gid) = (
            fields.next()?,
            fields.nth(1)?.parse().ok()?,
            fields.next()?.parse().ok()?,
        );
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(User {
            name: Some(name),
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn find_user<'a>(passwd: &'a str, wanted: &str) -> Result<User<'a>> {
    let number = number(wanted);
    let mut users = users(passwd);
    let entry = match number {
        _ if wanted.is_empty() => users.find(|user| user.uid == 0),
        // A number is always an id, even if somebody has it for a name.
        Some(number) => users.find(|user| i64::from(user.uid) == number),
        None => users.find(|user| user.name == Some(wanted)),
    };
    match (entry, number) {
        (Some(user), _) => Ok(user),
        (None, Some(number)) => Ok(User {
            name: None,
            uid: in_range(number)?,
            gid: 0,
            home: "/",
        }),
        (None, None) if wanted.is_empty() => Ok(User {
            name: None,
            uid: 0,
            gid: 0,
            home: "/",
        }),
        (None, None) => Err(Error::Invalid(format!(
            "unable to find user {wanted}: no matching entries in passwd file"
        ))),
    }
}

fn find_group(group: &str, wanted: &str, unable: &str) -> Result<u32> {
    let number = number(wanted);
    let entry = match number {
        Some(number) => groups(group).find(|entry| i64::from(entry.gid) == number),
        None => groups(group).find(|entry| entry.name == wanted),
    };
    match (entry, number) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Some(number)) => in_range(number),
        (None, None) => Err(Error::Invalid(format!(
            "{unable} to find group {wanted}: no matching entries in group file"
        ))),
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn in_range(number: i64) -> Result<u32> {
    let id = u32::try_from(number).ok().filter(|id| *id <= MAX_ID);
    id.ok_or_else(|| Error::Invalid(format!("uids and gids must be in range 0-{MAX_ID}")))
}

/// A file beneath `rootfs`; empty when there is none.
fn read(rootfs: &Path, path: &str) -> Result<String> {
    let operation = || format!("read {path} in {}", rootfs.display());
    let root = rustix::fs::open(
        rootfs,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let root = root.map_err(|errno| Error::io(operation())(errno.into()))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat2(
        &root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(String::new());
        }
        Err(errno) => return Err(Error::io(operation())(errno.into())),
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io(operation())(error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad line\nada:x:1000:100:,,:/home/ada:/bin/sh\n7:x:77:77::/seven:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,ada\naudio:x:29:ada\n";

    fn resolved(spec: &str) -> ResolvedUser {
        resolve_in(PASSWD, GROUP, spec, &[]).unwrap()
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(
            resolved(""),
            ResolvedUser {
                uid: 0,
                gid: 0,
                additional_gids: vec![0, 10],
                home: "/root".into()
            }
        );
        assert_eq!(
            resolved("ada"),
            ResolvedUser {
                uid: 1000,
                gid: 100,
                additional_gids: vec![100, 10, 29],
                home: "/home/ada".into()
            }
        );
        assert_eq!(resolved("1000"), resolved("ada"));
        assert_eq!(resolved("ada:wheel").additional_gids, [10]);
        assert_eq!(
            resolved("4242:4343"),
            ResolvedUser {
                uid: 4242,
                gid: 4343,
                additional_gids: vec![4343],
                home: "/".into()
            }
        );
        // A numeric name is an id.
        assert_eq!(resolved("7").uid, 7);
    }

    #[test]
    fn without_files() {
        assert_eq!(
            resolve_in("", "", "", &[]).unwrap(),
            ResolvedUser::default()
        );
        assert_eq!(
            resolve_in("", "", "5", &["7".into()])
                .unwrap()
                .additional_gids,
            [0, 7]
        );
    }

    #[test]
    fn errors() {
        let error = |spec: &str, add: &[String]| {
            resolve_in(PASSWD, GROUP, spec, add)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error("bob", &[]),
            "unable to find user bob: no matching entries in passwd file"
        );
        assert_eq!(
            error("ada:bob", &[]),
            "unable to find group bob: no matching entries in group file"
        );
        assert_eq!(
            error("ada", &["bob".into()]),
            "Unable to find group bob: no matching entries in group file"
        );
        assert_eq!(
            error("-1", &[]),
            "uids and gids must be in range 0-2147483647"
        );
    }

    #[test]
    fn links_do_not_lead_out() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/group")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", root.path().join("etc/passwd"))
            .unwrap();
        assert_eq!(
            resolve(root.path(), "", &[]).unwrap(),
            ResolvedUser::default()
        );
    }
}
