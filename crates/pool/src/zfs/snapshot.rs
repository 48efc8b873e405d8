//! Snapshots of one or several datasets at one moment.

use types::{Result, SnapshotId, VolumeId};

use super::{
    ZfsPool,
    command::{LONG, run},
    dataset::{fresh, property},
    state::{HIDDEN, NEXT, State},
};
use crate::no_dataset;

impl ZfsPool {
    /// Takes snapshots of live branches: at one moment, or with the first failure none.
    pub(super) fn take(&self, wanted: &[(&VolumeId, &SnapshotId)]) -> Result<()> {
        let mut state = self.branches()?;
        if self.finish_helping(&state)? {
            state = self.branches()?;
        }
        let mut ids: Vec<_> = wanted.iter().map(|(id, _)| *id).collect();
        ids.sort();
        ids.dedup();
        self.add_snapshots(&mut state, &ids)?;
        let mut names = Vec::new();
        for (id, snapshot) in wanted {
            let live = state
                .live(id)
                .ok_or_else(|| no_dataset(&self.spec.name, id))?;
            let pair = (self.full(&live.name), snapshot.to_string());
            if state.holder(id, snapshot).is_none() && !names.contains(&pair) {
                names.push(pair);
            }
        }
        match names.len() {
            0 => {}
            1 => self.take_one_by_one(&names)?,
            _ if self.modern => {
                let names: Vec<_> = names.iter().map(|(b, s)| format!("{b}@{s}")).collect();
                let args: Vec<_> = std::iter::once("snapshot")
                    .chain(names.iter().map(String::as_str))
                    .collect();
                self.zfs(&args)?;
            }
            _ => {
                // One helping snapshot of a branch gets one name.
                while !names.is_empty() {
                    let mut round: Vec<(String, String)> = Vec::new();
                    names.retain(|pair| {
                        let again = round.iter().any(|(branch, _)| *branch == pair.0);
                        if !again {
                            round.push(pair.clone());
                        }
                        again
                    });
                    self.take_by_renaming(&round)?;
                }
            }
        }
        fault::point("zfs.snapshot.taken");
        Ok(())
    }

    fn take_one_by_one(&self, names: &[(String, String)]) -> Result<()> {
        for (branch, snapshot) in names {
            self.zfs(&["snapshot", &format!("{branch}@{snapshot}")])?;
        }
        Ok(())
    }

    /// An old `zfs snapshot` takes one name. But it takes all branches at one moment with
    /// `-r`: those that are wanted then get their names, and the others go. Which names is
    /// noted first, so that after a crash all get theirs, or none.
    fn take_by_renaming(&self, names: &[(String, String)]) -> Result<()> {
        let helping = format!("{HIDDEN}{}", fresh());
        let root = format!("{}@{helping}", self.root);
        let taken = names
            .iter()
            .try_for_each(|(branch, snapshot)| {
                let next = property(NEXT, format_args!("{helping}:{snapshot}"));
                self.zfs(&["set", &next, branch]).map(drop)
            })
            .and_then(|()| {
                fault::point("zfs.snapshot.announced");
                self.zfs(&["snapshot", "-r", &root])
            });
        if let Err(failed) = taken {
            for (branch, _) in names {
                let _ = self.zfs(&["inherit", NEXT, branch]);
            }
            return Err(failed.into());
        }
        fault::point("zfs.snapshot.all");
        for (branch, snapshot) in names {
            self.name_helping(branch, &helping, snapshot)?;
            fault::point("zfs.snapshot.named");
        }
        if let Err(failed) = run("zfs", &["destroy", "-r", &root], LONG) {
            tracing::warn!(%failed, "helping snapshots are left to a sweep");
        }
        Ok(())
    }

    /// Gives a helping snapshot its name, if it was taken.
    fn name_helping(&self, branch: &str, helping: &str, name: &str) -> Result<()> {
        let (from, to) = (format!("{branch}@{helping}"), format!("{branch}@{name}"));
        match self.zfs(&["rename", &from, &to]) {
            Err(failed) if !failed.is_absent() => return Err(failed.into()),
            _ => {}
        }
        self.zfs(&["inherit", NEXT, branch])?;
        Ok(())
    }

    /// Finishes snapshots of several that were cut off; true when there were any.
    pub(super) fn finish_helping(&self, state: &State) -> Result<bool> {
        let mut any = false;
        for branch in &state.branches {
            if let Some((helping, name)) = &branch.next {
                self.name_helping(&self.full(&branch.name), helping, name)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Destroys what a snapshot of several left everywhere when it was cut off.
    pub(super) fn sweep_helping(&self) -> Result<()> {
        self.finish_helping(&self.branches()?)?;
        let mut args = vec!["list", "-H", "-r", "-d", "1", "-t", "snapshot"];
        args.extend(["-o", "name", &self.root]);
        for name in self.zfs(&args)?.lines() {
            let own = name.strip_prefix(&self.root);
            if own.is_some_and(|rest| rest.starts_with(&format!("@{HIDDEN}"))) {
                run("zfs", &["destroy", "-r", name], LONG)?;
            }
        }
        Ok(())
    }
}
