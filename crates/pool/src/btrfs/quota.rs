//! What a dataset's limit means, and the limit of its quota group that makes it so.
//!
//! A limit is on what the live dataset and its snapshots refer to. The kernel limits what is
//! *charged* to the dataset's group, which is not the same (see `usage`), so the group's limit
//! is the dataset's with the difference made up. The difference changes while a dataset is
//! written: [`Core::survey_where_needed`] finds it again, in the background, for datasets that
//! come near their limit, and takes at most a tenth of one processor's time for each.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use types::{Result, VolumeId, error::ResultExt as _};

use super::{
    core::{self, Core, Dataset},
    dataset::{self, LIVE, Note},
    groups, ioctl, locked,
    search::{self, QGROUP_LIMIT, QUOTA_TREE, Range},
    usage::{self, Question, Survey},
};
use crate::Usage;

/// What is known of the datasets of a pool beyond what their groups say.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pages: Mutex<BTreeMap<VolumeId, Page>>,
    /// Ends surveys: the pool is being closed.
    stop: AtomicBool,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone, Copy)]
struct Page {
    survey: Survey,
    /// The generation of the live subvolume that was looked at.
    generation: u64,
    /// Whether it had clones, and how many snapshots there were.
    lends: bool,
    snapshots: usize,
    finished: Instant,
    took: Duration,
}

impl Ledger {
    /// A dataset is gone.
    pub(super) fn forget(&self, id: &VolumeId) {
        locked(&self.pages).remove(id);
    }
    /// A dataset is another now: the next chance to look at it is taken.
    pub(super) fn stale(&self, id: &VolumeId) {
        if let Some(page) = locked(&self.pages).get_mut(id) {
            page.generation = 0;
            page.took = Duration::ZERO;
        }
    }
    /// Ends the survey that runs, and lets none begin.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = locked(&self.worker).take() {
            let _ = worker.join();
        }
    }
    pub(super) fn resume(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }
}

/// What counts against the limit of a dataset of which `charged` bytes are charged.
fn counted(charged: u64, limit: Option<u64>, survey: &Survey) -> u64 {
    let waste = excused(limit, survey);
    (charged + survey.shared)
        .saturating_sub(survey.lent)
        .saturating_sub(waste)
}

/// Waste does not count, or a database in a full volume could not be written any more; but it
/// never takes more than the limit once again, or one volume could fill the pool.
fn excused(limit: Option<u64>, survey: &Survey) -> u64 {
    survey.waste.min(limit.unwrap_or(u64::MAX))
}

/// The limit for the group of a dataset whose own is `limit`.
fn group_limit(limit: u64, survey: &Survey) -> u64 {
    let wanted = (limit + survey.lent + excused(Some(limit), survey)).saturating_sub(survey.shared);
    wanted + headroom(limit, survey)
}

/// A clone that is as full as its origin may still write over what it shares: the new blocks
/// are charged before the old ones are known to be let go.
fn headroom(limit: u64, survey: &Survey) -> u64 {
    const LEAST: u64 = 16 << 20;
    const MOST: u64 = 256 << 20;
    survey.shared.min((limit / 16).clamp(LEAST, MOST))
}

/// Before a first survey: what the note says.
fn noted(note: &Note) -> Survey {
    Survey {
        shared: note.copied.as_ref().map_or(0, |copied| copied.shared),
        ..Survey::default()
    }
}

/// The limit that is on a group now.
fn current_limit(any: &File, group: groups::Group) -> Result<Option<u64>> {
    let mut found = None;
    let range = Range {
        tree: QUOTA_TREE,
        from: (0, QGROUP_LIMIT, group.0),
        to: (0, QGROUP_LIMIT, group.0),
        since: 0,
    };
    search::search(any, range, |item| {
        const MAX_RFER: u64 = 1;
        if item.kind == QGROUP_LIMIT && item.u64(0) & MAX_RFER != 0 {
            found = Some(item.u64(8));
        }
        ControlFlow::Break(())
    })
    .during(|| "read the limit of a quota group")?;
    Ok(found)
}

impl Core {
    fn known(&self, id: &VolumeId, note: &Note) -> Survey {
        locked(&self.ledger.pages)
            .get(id)
            .map_or_else(|| noted(note), |page| page.survey)
    }

    /// Puts the right limit onto a dataset's group.
    pub(super) fn apply_limit(&self, root: &File, id: &VolumeId, found: &Dataset) -> Result<()> {
        let survey = self.known(id, &found.note);
        let wanted = found.note.limit.map(|limit| group_limit(limit, &survey));
        if current_limit(root, found.group())? != wanted {
            groups::limit(root, found.group(), wanted)
                .map_err(|error| error.context(format!("limit dataset {id:?}")))?;
        }
        Ok(())
    }

    /// What counts against the limits of all datasets.
    pub(super) fn counted(&self) -> Result<Vec<(VolumeId, u64)>> {
        core::notes(&self.volumes)?
            .into_iter()
            .map(|(id, note)| {
                let charged = self.charged_now(groups::Group::new(1, note.group))?;
                let survey = self.known(&id, &note);
                Ok((id, counted(charged, note.limit, &survey)))
            })
            .collect()
    }

    /// The use of a dataset, by a survey of now.
    pub(super) fn usage(&self, id: &VolumeId) -> Result<Usage> {
        let root = self.root()?;
        let found = self.dataset(id)?;
        self.committed(&root, || format!("write dataset {id:?}"))?;
        let survey = self.look_at(id)?;
        let charged = self.charged_now(found.group())?;
        let snapshots = match dataset::snapshots(&found.directory)?.is_empty() {
            true => 0,
            false => (charged + survey.shared)
                .saturating_sub(survey.lent)
                .saturating_sub(survey.live + survey.waste),
        };
        Ok(Usage {
            live: survey.live,
            snapshots,
            limit: found.note.limit,
        })
    }

    /// Surveys a dataset, notes what was found and limits it accordingly.
    fn look_at(&self, id: &VolumeId) -> Result<Survey> {
        let began = Instant::now();
        let root = self.root()?;
        let found = self.dataset(id)?;
        let live = dataset::open(&found.directory.join(LIVE))?;
        let generation = ioctl::subvolume_info(&live)
            .during(|| format!("look at dataset {id:?}"))?
            .generation;
        let snapshots = dataset::snapshots(&found.directory)?
            .iter()
            .map(|snapshot| dataset::open(&found.directory.join(dataset::snapshot_name(snapshot))))
            .collect::<Result<Vec<_>>>()?;
        let lends = lends(&self.volumes, found.note.group)?;
        let page = locked(&self.ledger.pages).get(id).copied();
        if let Some(page) = page
            && (page.generation, page.lends, page.snapshots) == (generation, lends, snapshots.len())
            && found.note.copied.is_none()
            && !lends
        {
            // Nothing was written since.
            return Ok(page.survey);
        }
        let survey = usage::survey(&Question {
            live: &live,
            snapshots: &snapshots,
            charged: self.charged_now(found.group())?,
            copied: found.note.copied.as_ref().map(|copied| copied.since),
            lends,
            cancel: &self.ledger.stop,
        })?;
        let page = Page {
            survey,
            generation,
            lends,
            snapshots: snapshots.len(),
            finished: Instant::now(),
            took: began.elapsed(),
        };
        locked(&self.ledger.pages).insert(id.clone(), page);
        let _serial = locked(&self.serial);
        // It may have been changed or removed meanwhile.
        let mut found = self.dataset(id)?;
        note_shared(&mut found, &survey)?;
        self.apply_limit(&root, id, &found)?;
        Ok(survey)
    }

    /// Begins to survey, in the background, what may be at its limit only seemingly. One
    /// thread at a time.
    pub(super) fn survey_where_needed(self: Arc<Self>) -> Result<()> {
        let core = self.clone();
        let mut worker = locked(&core.ledger.worker);
        if worker.as_ref().is_some_and(|worker| !worker.is_finished())
            || self.ledger.stop.load(Ordering::Relaxed)
        {
            return Ok(());
        }
        let wanted = self.in_need()?;
        if wanted.is_empty() {
            return Ok(());
        }
        let started = thread::Builder::new()
            .name("pool-survey".into())
            .spawn(move || {
                for id in wanted {
                    if let Err(error) = self.look_at(&id) {
                        tracing::debug!(%error, ?id, "a survey failed");
                    }
                }
            });
        *worker = Some(started.during(|| "start a thread")?);
        Ok(())
    }

    /// The datasets that a survey may help.
    fn in_need(&self) -> Result<Vec<VolumeId>> {
        const REST: u32 = 10;
        let mut wanted = Vec::new();
        for (id, note) in core::notes(&self.volumes)? {
            let Some(limit) = note.limit else { continue };
            let page = locked(&self.ledger.pages).get(&id).copied();
            let Some(page) = page else {
                if note.copied.is_some() || self.is_near(&note, limit, &noted(&note))? {
                    wanted.push(id);
                }
                continue;
            };
            if page.finished.elapsed() < page.took * REST
                || !self.is_near(&note, limit, &page.survey)?
            {
                continue;
            }
            // Unchanged, it would be found as it was.
            let live = self.volumes.join(id.as_str()).join(LIVE);
            if let Ok(live) = File::open(live)
                && let Ok(info) = ioctl::subvolume_info(&live)
                && info.generation != page.generation
            {
                wanted.push(id);
            }
        }
        Ok(wanted)
    }

    fn is_near(&self, note: &Note, limit: u64, survey: &Survey) -> Result<bool> {
        let charged = self.charged_now(groups::Group::new(1, note.group))?;
        let left = group_limit(limit, survey).saturating_sub(charged);
        Ok(left < limit / 8 + headroom(limit, survey))
    }
}

/// Whether another dataset was copied from that of this group.
fn lends(volumes: &Path, group: u64) -> Result<bool> {
    Ok(core::notes(volumes)?.values().any(|note| {
        note.copied
            .as_ref()
            .is_some_and(|copied| copied.from.contains(&group))
    }))
}

/// Writes down what a clone shares still. It only ever becomes less; one that shares nothing is
/// no clone any more.
fn note_shared(found: &mut Dataset, survey: &Survey) -> Result<()> {
    let Some(copied) = &mut found.note.copied else {
        return Ok(());
    };
    if survey.shared == 0 {
        found.note.copied = None;
    } else if survey.shared == copied.shared {
        return Ok(());
    } else {
        copied.shared = survey.shared;
    }
    found.note.write(&found.directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn a_plain_dataset_has_the_limit_of_its_group() {
        let survey = Survey::default();
        assert_eq!(group_limit(100 * M, &survey), 100 * M);
        assert_eq!(counted(70 * M, Some(100 * M), &survey), 70 * M);
    }

    #[test]
    fn a_clone_is_charged_for_what_it_shares_but_can_write_over_it() {
        let survey = Survey {
            shared: 100 * M,
            ..Survey::default()
        };
        assert_eq!(counted(0, Some(100 * M), &survey), 100 * M);
        assert_eq!(group_limit(100 * M, &survey), 16 * M);
        let nearly_alone = Survey {
            shared: M,
            ..Survey::default()
        };
        assert_eq!(group_limit(100 * M, &nearly_alone), 100 * M);
    }

    #[test]
    fn an_origin_is_not_charged_for_what_only_clones_hold() {
        let survey = Survey {
            lent: 40 * M,
            ..Survey::default()
        };
        assert_eq!(counted(140 * M, Some(100 * M), &survey), 100 * M);
        assert_eq!(group_limit(100 * M, &survey), 140 * M);
    }

    #[test]
    fn waste_is_excused_once() {
        let survey = Survey {
            waste: 300 * M,
            ..Survey::default()
        };
        assert_eq!(group_limit(100 * M, &survey), 200 * M);
        assert_eq!(counted(400 * M, Some(100 * M), &survey), 300 * M);
    }
}
