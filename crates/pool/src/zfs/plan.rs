//! Which steps bring a pool to the form that the module's invariants ask for.
//!
//! Pure: it takes what was found and answers with steps, in an order in which the pool is
//! sound after each. After a crash the rest of them follows from what is found then.

use types::VolumeId;

use super::state::{Form, Mark, Owner, State, is_hidden};

/// One change of a pool. Names are below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Destroys a view, unless somebody reads it.
    DropView(String),
    /// Destroys a branch with its snapshots.
    Destroy(String),
    /// Lets a clone and its origin change places; snapshots up to the origin move along.
    Promote(String),
    /// Gives a snapshot the name of one that nobody wants.
    Hide {
        branch: String,
        from: String,
        to: String,
    },
    /// Destroys snapshots of one branch, each as soon as it has no clones.
    Discard {
        branch: String,
        snapshots: Vec<String>,
    },
    Rewind(Rewind),
}

/// Gives up what a branch that only keeps snapshots has beyond its newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rewind {
    pub branch: String,
    pub to: String,
    pub form: Form,
    pub mounted: bool,
}

/// How much a plan shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What later calls build upon.
    Needed,
    /// Also what only gives space back.
    Space,
}

/// Plans for the volumes `ids`, whose branches' snapshots `state` must have. `hidden` makes the
/// name of a snapshot that nobody wants of its name. Rubbish that was
/// never finished goes whosever it is.
pub(super) fn plan(
    state: State,
    ids: &[VolumeId],
    depth: Depth,
    hidden: &mut dyn FnMut(&str) -> String,
) -> Vec<Step> {
    let mut planner = Planner {
        state,
        steps: Vec::new(),
        hidden,
    };
    planner.drop_unfinished();
    for id in ids {
        planner.volume(id, depth);
    }
    planner.steps
}

struct Planner<'a> {
    state: State,
    steps: Vec<Step>,
    /// The name that a snapshot gets.
    hidden: &'a mut dyn FnMut(&str) -> String,
}

impl Planner<'_> {
    fn drop_unfinished(&mut self) {
        let unfinished: Vec<_> = self
            .state
            .branches
            .iter()
            .filter(|branch| branch.volume().is_some() && branch.mark == Mark::Unfinished)
            .map(|branch| branch.name.clone())
            .collect();
        for name in unfinished {
            self.destroy(name);
        }
    }

    fn volume(&mut self, id: &VolumeId, depth: Depth) {
        let Some(head) = self.state.head(id).cloned() else {
            return;
        };
        let alive = head.mark == Mark::Live;
        self.promote_head(id, &head.name);
        self.drop_views(id, alive);
        if alive {
            self.discard_hidden(id, depth);
        }
        while let Some(name) = self.superfluous(id, alive, &head.name) {
            self.strip(&name);
            self.destroy(name);
        }
        if alive && depth == Depth::Space {
            self.rewind(id, &head.name);
        }
    }

    /// The head is cloned from none of its own volume.
    fn promote_head(&mut self, id: &VolumeId, head: &str) {
        // Each time the head takes the place of one branch; a cycle can't be, but must not hang.
        for _ in 0..self.state.branches.len() {
            let own = self
                .state
                .get(head)
                .and_then(|branch| branch.origin.as_ref())
                .and_then(|(origin, _)| self.state.get(origin))
                .is_some_and(|origin| origin.volume() == Some(id));
            if !own {
                return;
            }
            self.promote(head.to_owned());
        }
    }

    /// No view of a snapshot that is gone.
    fn drop_views(&mut self, id: &VolumeId, alive: bool) {
        let views: Vec<_> = self
            .state
            .branches
            .iter()
            .filter(|branch| branch.owner == Owner::View)
            .filter(|view| {
                view.origin.as_ref().is_some_and(|(branch, snapshot)| {
                    (!alive || is_hidden(snapshot))
                        && self.state.get(branch).and_then(|of| of.volume()) == Some(id)
                })
            })
            .map(|view| view.name.clone())
            .collect();
        for name in views {
            self.forget(&name);
            self.steps.push(Step::DropView(name));
        }
    }

    fn discard_hidden(&mut self, id: &VolumeId, depth: Depth) {
        let branches: Vec<_> = self.state.of(id).cloned().collect();
        for branch in branches {
            let gone: Vec<_> = branch
                .snapshots
                .iter()
                .filter(|name| is_hidden(name))
                .filter(|name| {
                    depth == Depth::Space || self.state.clones(&branch.name, name).is_empty()
                })
                .cloned()
                .collect();
            self.discard(&branch.name, gone);
        }
    }

    /// A branch that can go next: none of its clones is to go as well. The head goes last, as
    /// it says that its volume is removed.
    fn superfluous(&self, id: &VolumeId, alive: bool, head: &str) -> Option<String> {
        let gone: Vec<_> = self
            .state
            .of(id)
            .filter(|branch| {
                if branch.name == head {
                    !alive
                } else {
                    !alive || branch.wanted().next().is_none()
                }
            })
            .collect();
        let ready = |name: &str| {
            gone.iter().all(|clone| {
                clone
                    .origin
                    .as_ref()
                    .is_none_or(|(origin, _)| origin != name)
            })
        };
        let mut ready = gone.iter().filter(|branch| ready(&branch.name));
        let first = ready.next()?;
        let other = if first.name == head {
            ready.next()
        } else {
            None
        };
        let chosen = other.unwrap_or(first);
        // A head with other branches left waits for them; they hang below it, not above.
        Some(chosen.name.clone())
    }

    /// Makes a branch that is to go one without clones: the clone of its newest snapshot that
    /// has any takes this and all older ones over.
    fn strip(&mut self, name: &str) {
        let Some(branch) = self.state.get(name).cloned() else {
            return;
        };
        let Some((newest, clone)) =
            branch
                .snapshots
                .iter()
                .enumerate()
                .rev()
                .find_map(|(i, snapshot)| {
                    let clones = self.state.clones(name, snapshot);
                    let own = clones.iter().find(|clone| {
                        self.state
                            .get(clone)
                            .is_some_and(|clone| clone.volume() == branch.volume())
                    });
                    Some((i, own.or(clones.first())?.clone()))
                })
        else {
            return;
        };
        let mut unused = Vec::new();
        let mut hidden = Vec::new();
        for snapshot in &branch.snapshots[..=newest] {
            if self.state.clones(name, snapshot).is_empty() {
                unused.push(snapshot.clone());
            } else if is_hidden(snapshot) {
                // Hidden by a call that was cut off: it may not have been told to go yet.
                hidden.push(snapshot.clone());
            } else {
                hidden.push(self.hide(name, snapshot));
            }
        }
        self.discard(name, unused);
        self.discard(name, hidden);
        self.promote(clone);
    }

    fn rewind(&mut self, id: &VolumeId, head: &str) {
        for branch in self.state.of(id).filter(|branch| branch.name != head) {
            if let Some(newest) = branch.snapshots.last()
                && branch.mark != Mark::Rewound(newest.clone())
            {
                self.steps.push(Step::Rewind(Rewind {
                    branch: branch.name.clone(),
                    to: newest.clone(),
                    form: branch.form,
                    mounted: branch.mounted,
                }));
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.state.branches.retain(|branch| branch.name != name);
    }
    fn destroy(&mut self, name: String) {
        self.forget(&name);
        self.steps.push(Step::Destroy(name));
    }
    fn promote(&mut self, name: String) {
        promote(&mut self.state, &name);
        self.steps.push(Step::Promote(name));
    }
    fn hide(&mut self, branch: &str, from: &str) -> String {
        let to = (self.hidden)(from);
        self.state.rename(branch, from, &to);
        self.steps.push(Step::Hide {
            branch: branch.to_owned(),
            from: from.to_owned(),
            to: to.clone(),
        });
        to
    }
    fn discard(&mut self, name: &str, snapshots: Vec<String>) {
        if snapshots.is_empty() {
            return;
        }
        let state = self.state.clone();
        if let Some(branch) = self.state.get_mut(name) {
            branch.snapshots.retain(|snapshot| {
                !snapshots.contains(snapshot) || !state.clones(name, snapshot).is_empty()
            });
        }
        self.steps.push(Step::Discard {
            branch: name.to_owned(),
            snapshots,
        });
    }
}

/// What `zfs promote` does.
pub(super) fn promote(state: &mut State, name: &str) {
    let Some((origin, at)) = state.get(name).and_then(|clone| clone.origin.clone()) else {
        return;
    };
    let mut moved = vec![at.clone()];
    let mut above = None;
    if let Some(branch) = state.get_mut(&origin) {
        if let Some(index) = branch.snapshots.iter().position(|name| *name == at) {
            moved = branch.snapshots.drain(..=index).collect();
        }
        above = branch.origin.replace((name.to_owned(), at.clone()));
    }
    for branch in &mut state.branches {
        if let Some((of, at)) = &mut branch.origin
            && *of == origin
            && moved.contains(at)
        {
            name.clone_into(of);
        }
    }
    if let Some(clone) = state.get_mut(name) {
        clone.origin = above;
        clone.snapshots.splice(0..0, moved);
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
