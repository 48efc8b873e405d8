//! Looks at the volumes in use that have a limit, and at the pools' free space, five times a
//! second, and tells when one is under pressure.
//!
//! What follows from it (which automatic snapshots go) is not decided here.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use types::{PoolName, Result, VolumeId, error::ResultExt as _};

use crate::Inner;

/// Something is fuller than it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pressure {
    /// A volume, its live data and what its snapshots pin, holds more than the bytes above which
    /// it is reported.
    Volume {
        id: VolumeId,
        charged: u64,
        above: u64,
    },
    /// A pool has little room left.
    Pool { name: PoolName, free: u64 },
}

/// How often volumes are looked at. btrfs writes at most a few hundred megabytes in that time,
/// which the reserve above a volume's size covers.
const PERIOD: Duration = Duration::from_millis(200);
/// How often the same thing is told again, and how often pools are looked at.
const REPEAT: Duration = Duration::from_secs(2);
/// A pool with less than this part free, or less than this many bytes, is under pressure.
const POOL_PART: u64 = 20;
const POOL_BYTES: u64 = 256 << 20;

/// When something under pressure was told last, in order not to tell it five times a second.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Told {
    Volume(VolumeId),
    Pool(PoolName),
}

type Report = Box<dyn Fn(Pressure) + Send + Sync>;

/// What to look at.
pub(crate) struct Watch {
    report: Report,
    above: Mutex<HashMap<VolumeId, (PoolName, u64)>>,
    woken: Condvar,
    told: Mutex<HashMap<Told, Instant>>,
}

impl Watch {
    pub(crate) fn new(report: impl Fn(Pressure) + Send + Sync + 'static) -> Self {
        Self {
            report: Box::new(report),
            above: Mutex::default(),
            woken: Condvar::new(),
            told: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, pool: &PoolName, id: &VolumeId, above: Option<u64>) {
        let mut map = self.above.lock().unwrap_or_else(PoisonError::into_inner);
        match above {
            Some(above) => drop(map.insert(id.clone(), (pool.clone(), above))),
            None => drop(map.remove(id)),
        }
        drop(map);
        // With another limit it is another story.
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&Told::Volume(id.clone()));
        self.wake();
    }

    pub(crate) fn forget(&self, id: &VolumeId) {
        self.above
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    pub(crate) fn wake(&self) {
        self.woken.notify_all();
    }

    fn tell(&self, pressure: Pressure) {
        let what = match &pressure {
            Pressure::Volume { id, .. } => Told::Volume(id.clone()),
            Pressure::Pool { name, .. } => Told::Pool(name.clone()),
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let again = told.get(&what).is_none_or(|at| at.elapsed() >= REPEAT);
        if again {
            told.retain(|_, at| at.elapsed() < REPEAT);
            told.insert(what, Instant::now());
            drop(told);
            (self.report)(pressure);
        }
    }
}

/// Starts the thread that looks. It ends when the last handle is gone.
pub(crate) fn spawn(inner: &Arc<Inner>) -> Result<()> {
    let weak = Arc::downgrade(inner);
    std::thread::Builder::new()
        .name("quota-watch".into())
        .spawn(move || look(&weak))
        .during(|| "starting the thread that watches quota")?;
    Ok(())
}

fn look(inner: &Weak<Inner>) {
    let mut pools_at = Instant::now();
    while let Some(inner) = inner.upgrade() {
        let in_use: Vec<VolumeId> = inner
            .attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .map(|key| key.volume.clone())
            .collect();
        let watched = inner
            .watch
            .above
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let due: Vec<_> = watched
            .into_iter()
            .filter(|(id, _)| in_use.contains(id))
            .collect();
        if !due.is_empty() {
            volumes(&inner, &due);
        }
        if !in_use.is_empty() && pools_at.elapsed() >= REPEAT {
            pools_at = Instant::now();
            pools(&inner);
        }
        // Without anything in use nothing grows: sleep until something is attached.
        let pause = if in_use.is_empty() {
            Duration::from_secs(60)
        } else if due.is_empty() {
            REPEAT
        } else {
            PERIOD
        };
        let guard = inner
            .watch
            .above
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waited = inner.watch.woken.wait_timeout(guard, pause);
        drop(waited);
    }
}

fn volumes(inner: &Inner, due: &[(VolumeId, (PoolName, u64))]) {
    let mut by_pool: HashMap<&PoolName, Vec<(&VolumeId, u64)>> = HashMap::new();
    for (id, (pool, above)) in due {
        by_pool.entry(pool).or_default().push((id, *above));
    }
    for (name, watched) in by_pool {
        let Ok(pool) = inner.pools.get(name) else {
            continue;
        };
        let charged = match pool.charged() {
            Ok(charged) => charged,
            Err(error) => {
                tracing::debug!(pool = %name, %error, "looking at the use of volumes");
                continue;
            }
        };
        for (id, bytes) in charged {
            let limit = watched.iter().find(|(other, _)| **other == id);
            if let Some(&(_, above)) = limit
                && bytes > above
            {
                inner.watch.tell(Pressure::Volume {
                    id,
                    charged: bytes,
                    above,
                });
            }
        }
    }
}

fn pools(inner: &Inner) {
    for (name, pool) in inner.pools.all() {
        let Ok(status) = pool.status() else { continue };
        if status.free < (status.total / POOL_PART).min(POOL_BYTES.max(status.total / 100)) {
            inner.watch.tell(Pressure::Pool {
                name,
                free: status.free,
            });
        }
    }
}
