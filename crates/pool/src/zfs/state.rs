//! What is on a pool, as the output of `zfs get` and `zfs list` tells it.

use std::collections::BTreeMap;

use types::{SnapshotId, VolumeId};

/// The properties that [`State::parse`] wants, as `zfs get` takes them.
pub(super) const PROPERTIES: &str = "type,origin,mounted,referenced,used,usedbydataset,refquota,volsize,kraud:state,kraud:content,kraud:bytes,kraud:next";
/// The user properties.
pub(super) const STATE: &str = "kraud:state";
pub(super) const CONTENT: &str = "kraud:content";
pub(super) const BYTES: &str = "kraud:bytes";
/// `<helping snapshot>:<SnapshotId>`: the name that the helping one gets once it is there.
pub(super) const NEXT: &str = "kraud:next";
/// Snapshots of this prefix are wanted by nobody; they wait until their clones are gone.
pub(super) const HIDDEN: &str = "x-";
/// In an old version renaming a snapshot unmounts its clones. There a property of the snapshot
/// says that nobody wants it; here it then has this before its name.
pub(super) const MARKED: &str = "x-=";
pub(super) const GONE: &str = "kraud:gone";

/// What a branch is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// One generation of a volume.
    Volume(VolumeId, u64),
    /// A snapshot made readable.
    View,
}

/// How far a branch has come: its property `kraud:state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// None: it is being made, or was when a crash came.
    Unfinished,
    Live,
    /// Its volume is removed.
    Removed,
    /// It only keeps snapshots, and its head is that of this one.
    Rewound(String),
}

impl Mark {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Unfinished => "-".into(),
            Self::Live => "live".into(),
            Self::Removed => "removed".into(),
            Self::Rewound(snapshot) => format!("old:{snapshot}"),
        }
    }
    fn parse(text: &str) -> Self {
        match text {
            "live" => Self::Live,
            "removed" => Self::Removed,
            _ => match text.strip_prefix("old:") {
                Some(snapshot) => Self::Rewound(snapshot.to_owned()),
                None => Self::Unfinished,
            },
        }
    }
}

/// How a branch keeps its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Files,
    /// A sparse file in a file system of its own.
    ImageFile,
    Zvol,
}

/// A file system or zvol directly below the pool's root.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    /// Below the root.
    pub name: String,
    pub owner: Owner,
    pub mark: Mark,
    pub form: Form,
    /// The branch and the snapshot of it from which this one was cloned.
    pub origin: Option<(String, String)>,
    pub mounted: bool,
    pub referenced: u64,
    pub used: u64,
    pub used_by_head: u64,
    pub quota: Option<u64>,
    /// Of an image.
    pub bytes: u64,
    /// A helping snapshot of this branch, and the name that it is to get.
    pub next: Option<(String, String)>,
    /// From the oldest to the newest. Only those of the branches that were asked for.
    pub snapshots: Vec<String>,
}

impl Branch {
    pub(super) fn volume(&self) -> Option<&VolumeId> {
        match &self.owner {
            Owner::Volume(id, _) => Some(id),
            Owner::View => None,
        }
    }
    pub(super) fn number(&self) -> u64 {
        match self.owner {
            Owner::Volume(_, number) => number,
            Owner::View => 0,
        }
    }
    /// Snapshots that somebody wants: ours, and what an administrator took.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &String> {
        self.snapshots.iter().filter(|name| !is_hidden(name))
    }
}

/// The name of a snapshot on the pool.
pub(super) fn real(snapshot: &str) -> &str {
    snapshot.strip_prefix(MARKED).unwrap_or(snapshot)
}

pub(super) fn is_hidden(snapshot: &str) -> bool {
    snapshot.starts_with(HIDDEN)
}

/// The name of a volume's branch.
pub(super) fn branch_name(id: &VolumeId, number: u64) -> String {
    format!("{id}.{number}")
}

/// The name of a snapshot's view.
pub(super) fn view_name(snapshot: &SnapshotId) -> String {
    format!("view-{snapshot}")
}

/// All branches of a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub branches: Vec<Branch>,
}

impl State {
    /// From the lines of `zfs get -Hp -o name,property,value` below `root`.
    pub(super) fn parse(root: &str, text: &str) -> Self {
        let mut found: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        for line in text.lines() {
            let mut columns = line.split('\t');
            if let (Some(name), Some(property), Some(value)) =
                (columns.next(), columns.next(), columns.next())
            {
                found.entry(name).or_default().insert(property, value);
            }
        }
        Self {
            branches: found
                .iter()
                .filter_map(|(name, values)| branch(root, name, values))
                .collect(),
        }
    }

    /// Takes up the lines of `zfs list -H -t snapshot`, which come in the order of their
    /// making: the name, and in an old version [`GONE`].
    pub(super) fn add_snapshots(&mut self, root: &str, text: &str) {
        for line in text.lines() {
            let (line, gone) = line.split_once('\t').unwrap_or((line, "-"));
            let Some((name, snapshot)) = below(root, line).and_then(|name| name.split_once('@'))
            else {
                continue;
            };
            if let Some(branch) = self.get_mut(name) {
                branch.snapshots.push(snapshot.to_owned());
                if gone == "yes" {
                    self.rename(name, snapshot, &format!("{MARKED}{snapshot}"));
                }
            }
        }
    }

    /// What `zfs rename` of a snapshot does.
    pub(super) fn rename(&mut self, branch: &str, from: &str, to: &str) {
        for other in &mut self.branches {
            if let Some((of, at)) = &mut other.origin
                && of == branch
                && at == from
            {
                to.clone_into(at);
            }
        }
        if let Some(branch) = self.get_mut(branch) {
            for name in &mut branch.snapshots {
                if name == from {
                    to.clone_into(name);
                }
            }
        }
    }
    pub(super) fn get(&self, name: &str) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.name == name)
    }
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Branch> {
        self.branches.iter_mut().find(|branch| branch.name == name)
    }
    /// Every volume with at least one branch, alive or not.
    pub(super) fn volumes(&self) -> Vec<VolumeId> {
        let mut ids: Vec<_> = self
            .branches
            .iter()
            .filter_map(|branch| branch.volume().cloned())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }
    pub(super) fn of<'a>(&'a self, id: &VolumeId) -> impl Iterator<Item = &'a Branch> {
        self.branches
            .iter()
            .filter(move |branch| branch.volume() == Some(id))
    }
    /// The newest branch of a volume that was finished: it decides whether the volume exists.
    pub(super) fn head(&self, id: &VolumeId) -> Option<&Branch> {
        self.of(id)
            .filter(|branch| branch.mark != Mark::Unfinished)
            .max_by_key(|branch| branch.number())
    }
    /// The live branch of a volume that exists.
    pub(super) fn live(&self, id: &VolumeId) -> Option<&Branch> {
        self.head(id).filter(|branch| branch.mark == Mark::Live)
    }
    /// The branch that has a volume's snapshot.
    pub(super) fn holder(&self, id: &VolumeId, snapshot: &SnapshotId) -> Option<&Branch> {
        self.of(id).find(|branch| {
            branch.mark != Mark::Unfinished
                && branch
                    .snapshots
                    .iter()
                    .any(|name| name == snapshot.as_str())
        })
    }
    /// The number that a volume's next branch gets.
    pub(super) fn next_number(&self, id: &VolumeId) -> u64 {
        self.of(id)
            .map(|branch| branch.number() + 1)
            .max()
            .unwrap_or(0)
    }
    /// The names of the branches that are clones of a snapshot.
    pub(super) fn clones(&self, branch: &str, snapshot: &str) -> Vec<String> {
        self.branches
            .iter()
            .filter(|clone| {
                clone
                    .origin
                    .as_ref()
                    .is_some_and(|(of, at)| of == branch && at == snapshot)
            })
            .map(|clone| clone.name.clone())
            .collect()
    }
}

fn below<'a>(root: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(root)?.strip_prefix('/')
}

fn branch(root: &str, name: &str, values: &BTreeMap<&str, &str>) -> Option<Branch> {
    let name = below(root, name)?;
    if name.contains(['@', '/']) {
        return None;
    }
    let owner = if name.starts_with("view-") {
        Owner::View
    } else {
        let (id, number) = name.split_once('.')?;
        Owner::Volume(id.parse().ok()?, number.parse().ok()?)
    };
    let text = |property: &str| values.get(property).copied().unwrap_or("-");
    let number = |property: &str| text(property).parse::<u64>().unwrap_or(0);
    let form = match (text("type"), text(CONTENT)) {
        ("volume", _) => Form::Zvol,
        (_, "image") => Form::ImageFile,
        _ => Form::Files,
    };
    Some(Branch {
        name: name.to_owned(),
        owner,
        mark: Mark::parse(text(STATE)),
        form,
        origin: below(root, text("origin"))
            .and_then(|origin| origin.split_once('@'))
            .map(|(branch, snapshot)| (branch.to_owned(), snapshot.to_owned())),
        mounted: text("mounted") == "yes",
        referenced: number("referenced"),
        used: number("used"),
        used_by_head: number("usedbydataset"),
        quota: Some(number("refquota")).filter(|bytes| *bytes > 0),
        bytes: number(if form == Form::Zvol { "volsize" } else { BYTES }),
        next: text(NEXT)
            .split_once(':')
            .map(|(helping, name)| (helping.to_owned(), name.to_owned())),
        snapshots: Vec::new(),
    })
}
