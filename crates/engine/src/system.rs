//! The installation as a whole: info, disk use, pruning rules that all nouns share.

use std::collections::BTreeMap;

use store::{Guard, Store, Txn};
use types::{
    Error, Filters, Result, Time,
    record::{decode, encode},
    state::Status,
};

use crate::{
    Engine, Scope,
    record::{InstallationRecord, key},
    request::ListRequest,
    view::{DiskUsage, ImageUsage, Info},
};

/// Reads the installation's record; writes it at first start.
pub(crate) async fn installation(store: &dyn Store) -> Result<InstallationRecord> {
    if let Some(entry) = store.get(key::INSTALLATION).await? {
        return decode(&entry.value);
    }
    let hex = types::id::random_hex();
    let id = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32]
    );
    let record = InstallationRecord {
        id,
        created: Time::now(),
    };
    store
        .commit(
            Txn::new()
                .when(Guard::Absent(key::INSTALLATION.into()))
                .put(key::INSTALLATION, encode(&record)?),
        )
        .await?;
    Ok(record)
}

/// The filter `until` of prune calls: a time, seconds since 1970, or a Go duration ago.
pub(crate) fn until(filters: &Filters) -> Result<Option<Time>> {
    match filters.values("until") {
        [] => Ok(None),
        [text] => moment(text, Time::now()).map(Some).ok_or_else(|| {
            Error::invalid(format!("invalid filter 'until={text}': want a time such as 2006-01-02T15:04:05Z, seconds since 1970, or a duration such as 24h"))
        }),
        _ => Err(Error::invalid("more than one until filter specified")),
    }
}

/// A point in time as docker's clients write it, relative to `now`.
pub fn moment(text: &str, now: Time) -> Option<Time> {
    if let Some(duration) = go_duration(text) {
        return Some(Time::from_unix_nanos(
            i128::from(now.unix_nanos()) - duration,
        ));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = seconds.parse::<i64>() {
        let nanos: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        return Some(Time::from_unix(seconds, nanos.parse().ok()?));
    }
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    Time::parse(&full)
}

/// Nanoseconds of Go's notation, `1h30m`, `10s`, `-2.5m`; `None` for anything else.
fn go_duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_len = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + unit_len] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[digits + unit_len..];
    }
    Some(sign * total as i128)
}

/// The filters `label` (must be there) and `label!` (must not).
pub(crate) fn labels_pass<'a>(filters: &Filters, get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let excluded = filters
        .values("label!")
        .iter()
        .any(|wanted| match wanted.split_once('=') {
            Some((name, value)) => get(name) == Some(value),
            None => get(wanted).is_some(),
        });
    !excluded && filters.labels("label", get)
}

impl Engine {
    /// Facts of the node, gathered now.
    pub(crate) async fn node(&self) -> Result<agent::NodeInfo> {
        self.agent.info().await
    }

    pub(crate) fn prune_event(&self, scope: &Scope, kind: &'static str, reclaimed: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.events
            .publish(&scope.namespace, kind, "prune", "", attributes);
    }

    /// `docker info`.
    pub async fn info(&self, scope: &Scope) -> Result<Info> {
        let containers = self.containers.of(&scope.namespace);
        let count = |wanted: &[Status]| {
            containers
                .iter()
                .filter(|container| wanted.contains(&container.status()))
                .count()
        };
        let paused = count(&[Status::Paused]);
        let running = count(&[Status::Running, Status::Restarting]);
        Ok(Info {
            id: self.installation.id.clone(),
            own_users: scope.is_tenant(),
            containers: containers.len(),
            running,
            paused,
            stopped: containers.len() - running - paused,
            images: self.catalog.list(&scope.namespace).await?.len(),
            data_dir: self.settings.data_dir.clone(),
            address_pools: self.settings.address_pools.clone(),
            insecure_registries: self.settings.insecure_registries.clone(),
            node: {
                let mut node = self.node().await?;
                // Of the machine's disks a tenant need not know.
                if !scope.is_tenant() {
                    node.warnings.extend(self.pool_warnings().await);
                }
                node
            },
        })
    }

    /// `docker system df`.
    pub async fn disk_usage(&self, scope: &Scope) -> Result<DiskUsage> {
        let everything = ListRequest {
            all: true,
            size: true,
            ..ListRequest::default()
        };
        let containers = self.container_list(scope, &everything).await?;
        let images = self.catalog.disk_usage(&scope.namespace).await?;
        let used_by = |image: &types::Digest| {
            containers
                .iter()
                .filter(|container| container.record.image == *image)
                .count()
        };
        let rows = images
            .images
            .into_iter()
            .map(|usage| ImageUsage {
                references: usage
                    .references
                    .tags
                    .iter()
                    .map(types::Reference::familiar)
                    .collect(),
                repo_digests: usage
                    .references
                    .digests
                    .iter()
                    .map(types::Reference::familiar)
                    .collect(),
                shared_size: usage.shared_size,
                containers: used_by(&usage.image.id),
                image: usage.image,
            })
            .collect();
        Ok(DiskUsage {
            layers_size: images.layers_size,
            volumes: self.volumes_with_usage(scope).await,
            containers,
            images: rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now = Time::from_unix(10_000, 0);
        let at = |text| moment(text, now);
        assert_eq!(at("1h30m"), Some(Time::from_unix(10_000 - 5400, 0)));
        assert_eq!(at("1.5"), Some(Time::from_unix(1, 500_000_000)));
        assert_eq!(at("1700000000"), Some(Time::from_unix(1_700_000_000, 0)));
        assert_eq!(at("1970-01-02"), Some(Time::from_unix(86_400, 0)));
        assert_eq!(at("1970-01-01T00:01"), Some(Time::from_unix(60, 0)));
        for bad in ["", "x", "1x", "-", "yesterday"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
