//! From docker's words for a volume (driver and options) to what is meant.
//!
//! Every option is checked here as far as that can be done without a pool: the engine refuses
//! what this installation cannot provide. Values that were left out stay `None`, so that what
//! the user chose can be told from what is the default today.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Class, FileSystem, schedule::Schedule};
use crate::{
    error::{Error, Result},
    name::{PoolName, SnapshotName, VolumeName},
    size,
};

/// The size of a block volume that nobody gave one.
pub const DEFAULT_BLOCK_SIZE: u64 = 10 << 30;
/// The least that a volume may be: an empty file system has to fit.
pub const LEAST_SIZE: u64 = 1 << 20;
/// XFS makes nothing smaller.
pub const LEAST_XFS: u64 = 300 << 20;
/// No file may be larger.
pub const MOST_SIZE: u64 = i64::MAX as u64;
/// Images consist of whole blocks of this size.
pub const BLOCK: u64 = 4096;

/// What a volume shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    pub class: Class,
    /// Bytes. Without: as much as the pool has (file classes), or as much as the origin.
    pub size: Option<u64>,
    /// Inside of a block volume; means nothing for the file classes.
    pub fs: FileSystem,
    /// Without: the first pool that fits.
    pub pool: Option<PoolName>,
    pub zone: Option<String>,
    /// Without: the default of the class, [`Class::default_schedule`].
    pub schedule: Option<Schedule>,
    pub from: Option<Origin>,
    pub media: Option<Media>,
    /// Seconds of writes that may be lost with the node, for `lv2`. Without: the default.
    pub rpo: Option<u64>,
}

impl VolumeSpec {
    /// A volume of `class` without any option.
    pub fn plain(class: Class) -> Self {
        Self {
            class,
            size: class.is_block().then_some(DEFAULT_BLOCK_SIZE),
            fs: FileSystem::default(),
            pool: None,
            zone: None,
            schedule: None,
            from: None,
            media: None,
            rpo: None,
        }
    }
    /// The schedule in force.
    pub fn schedule(&self) -> Schedule {
        self.schedule.unwrap_or(self.class.default_schedule())
    }
}

impl Class {
    /// The automatic snapshots of a volume that nobody gave a schedule.
    pub fn default_schedule(self) -> Schedule {
        match self {
            Self::Nfs | Self::Gfs | Self::Rbd => Schedule::daily(),
            Self::Lv2 => Schedule::hourly(),
            Self::Lv1 => Schedule::NONE,
        }
    }
}

/// What a new volume is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    pub volume: VolumeName,
    /// Without: the volume as it is now.
    pub snapshot: Option<SnapshotName>,
}

impl FromStr for Origin {
    type Err = Error;
    /// `volume` or `volume@snapshot`.
    fn from_str(text: &str) -> Result<Self> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (text, None),
        };
        Ok(Self {
            volume: volume.parse()?,
            snapshot: snapshot.map(str::parse).transpose()?,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.volume)?;
        match &self.snapshot {
            Some(snapshot) => write!(f, "@{snapshot}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

/// What a `gfs` volume's bytes lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    Ssd,
    Hdd,
}

impl Media {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
        }
    }
}

impl FromStr for Media {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Ssd, Self::Hdd]
            .into_iter()
            .find(|media| media.as_str() == text)
            .ok_or_else(|| Error::invalid("want ssd or hdd"))
    }
}

/// The options, and the classes that have them.
const OPTIONS: [(&str, &[Class]); 8] = [
    ("size", &Class::ALL),
    ("snapshots", &Class::ALL),
    ("pool", &Class::ALL),
    ("zone", &Class::ALL),
    ("from", &Class::ALL),
    ("fs", &[Class::Lv2, Class::Lv1, Class::Rbd]),
    ("media", &[Class::Gfs]),
    ("rpo", &[Class::Lv2]),
];

/// What docker's own `local` driver takes.
const FOREIGN: [&str; 3] = ["type", "device", "o"];

/// Reads a volume driver's name and options as docker's clients send them.
pub fn parse(driver: &str, options: &BTreeMap<String, String>) -> Result<VolumeSpec> {
    let class: Class = driver.parse()?;
    let mut spec = VolumeSpec::plain(class);
    for (name, value) in options {
        check_name(class, name)?;
        apply(&mut spec, name, value).map_err(|error| {
            error.context(format!("invalid value {value:?} of volume option {name}"))
        })?;
    }
    if spec.from.is_some() && !options.contains_key("size") {
        spec.size = None;
    }
    if class.is_block()
        && spec.fs == FileSystem::Xfs
        && spec.size.is_some_and(|size| size < LEAST_XFS)
    {
        return Err(Error::invalid(format!(
            "invalid value {:?} of volume option size: xfs needs 300M at least",
            options.get("size").map_or("", String::as_str)
        )));
    }
    Ok(spec)
}

fn check_name(class: Class, name: &str) -> Result<()> {
    let has = |classes: &[Class]| classes.contains(&class);
    match OPTIONS.iter().find(|(known, _)| *known == name) {
        Some((_, classes)) if has(classes) => Ok(()),
        Some((_, classes)) => Err(Error::invalid(format!(
            "volume option {name} does not apply to class {class}, only to {}",
            enumeration(classes.iter().map(|class| class.as_str()))
        ))),
        None => {
            let known = enumeration(
                OPTIONS
                    .iter()
                    .filter(|(_, classes)| has(classes))
                    .map(|(name, _)| *name),
            );
            let hint = if FOREIGN.contains(&name) {
                "; kraud mounts no foreign file systems: use a bind mount of a directory where you mounted it"
            } else {
                ""
            };
            Err(Error::invalid(format!(
                "unknown volume option {name:?}: the options of class {class} are {known}{hint}"
            )))
        }
    }
}

/// `a, b and c`.
fn enumeration<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

fn apply(spec: &mut VolumeSpec, name: &str, value: &str) -> Result<()> {
    match name {
        "size" => spec.size = Some(parse_size(spec.class, value)?),
        "snapshots" => spec.schedule = Some(value.parse()?),
        "pool" => spec.pool = Some(value.parse()?),
        "zone" => spec.zone = Some(parse_zone(value)?),
        "from" => spec.from = Some(value.parse()?),
        "fs" => spec.fs = value.parse()?,
        "media" => spec.media = Some(value.parse()?),
        "rpo" => spec.rpo = Some(parse_rpo(value)?),
        _ => {}
    }
    Ok(())
}

/// A volume's size in bytes; that of a block volume is made whole blocks.
pub fn parse_size(class: Class, text: &str) -> Result<u64> {
    if text.trim_start().starts_with('-') {
        return Err(Error::invalid("a size cannot be negative"));
    }
    let bytes = size::parse(text)
        .map_err(|_| Error::invalid("not a size; want a number and a unit, such as 10G or 512M"))?;
    check_size(class, bytes)
}

/// The same for a size that is a number already.
pub fn check_size(class: Class, bytes: u64) -> Result<u64> {
    let bytes = if class.is_block() {
        bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
    } else {
        bytes
    };
    if bytes == 0 {
        return Err(Error::invalid("a size cannot be zero"));
    }
    if bytes < LEAST_SIZE {
        return Err(Error::invalid(format!(
            "{bytes} bytes are too small, 1M is the least; sizes without a unit are bytes"
        )));
    }
    if bytes > MOST_SIZE {
        return Err(Error::invalid("larger than any volume can be"));
    }
    Ok(bytes)
}

fn parse_zone(text: &str) -> Result<String> {
    let fits = (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !fits {
        return Err(Error::invalid(
            "a zone is a letter or digit, then letters, digits, '_', '.' or '-', 63 at most",
        ));
    }
    Ok(text.to_owned())
}

/// `15m`, `1h`, `90s`: a minute to a week.
fn parse_rpo(text: &str) -> Result<u64> {
    let bad = || Error::invalid("want a time from 1m to 7d, such as 15m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|seconds| (60..=7 * 86_400).contains(seconds))
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(driver: &str, options: &[(&str, &str)]) -> Result<VolumeSpec> {
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        parse(driver, &options)
    }
    fn refused(driver: &str, options: &[(&str, &str)]) -> String {
        read(driver, options).unwrap_err().message
    }

    #[test]
    fn defaults() {
        for (driver, class, size, schedule) in [
            ("", Class::Nfs, None, "daily:7,weekly:4,monthly:12"),
            ("local", Class::Nfs, None, "daily:7,weekly:4,monthly:12"),
            ("nfs", Class::Nfs, None, "daily:7,weekly:4,monthly:12"),
            ("gfs", Class::Gfs, None, "daily:7,weekly:4,monthly:12"),
            ("lv2", Class::Lv2, Some(10 << 30), "hourly:24"),
            ("lv1", Class::Lv1, Some(10 << 30), "none"),
        ] {
            let spec = read(driver, &[]).unwrap();
            assert_eq!((spec.class, spec.size), (class, size), "{driver}");
            assert_eq!(spec.schedule().to_string(), schedule, "{driver}");
            assert_eq!(spec, VolumeSpec::plain(class));
        }
    }

    #[test]
    fn all_options() {
        let spec = read(
            "lv2",
            &[
                ("size", "1.5G"),
                ("fs", "xfs"),
                ("pool", "fast"),
                ("zone", "berlin-1"),
                ("snapshots", "hourly:3"),
                ("from", "other@monday"),
                ("rpo", "15m"),
            ],
        )
        .unwrap();
        assert_eq!(spec.size, Some(3 << 29));
        assert_eq!(spec.fs, FileSystem::Xfs);
        assert_eq!(spec.pool.as_ref().unwrap().as_str(), "fast");
        assert_eq!(spec.zone.as_deref(), Some("berlin-1"));
        assert_eq!(spec.schedule.unwrap().to_string(), "hourly:3");
        assert_eq!(spec.from.as_ref().unwrap().to_string(), "other@monday");
        assert_eq!(spec.rpo, Some(900));
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<VolumeSpec>(&json).unwrap(), spec);
        let spec = read("gfs", &[("media", "hdd"), ("snapshots", "off")]).unwrap();
        assert_eq!(
            (spec.media, spec.schedule),
            (Some(Media::Hdd), Some(Schedule::NONE))
        );
        // The size of a copy is that of its origin.
        assert_eq!(read("lv2", &[("from", "other")]).unwrap().size, None);
        assert_eq!(
            read("lv1", &[("size", "1048577")]).unwrap().size,
            Some((1 << 20) + 4096)
        );
        assert_eq!(
            read("nfs", &[("size", "1048577")]).unwrap().size,
            Some(1048577)
        );
    }

    #[test]
    fn unknown_names_come_with_the_known_ones() {
        assert_eq!(
            refused("nfs", &[("sise", "1G")]),
            "unknown volume option \"sise\": the options of class nfs are size, snapshots, pool, zone and from"
        );
        assert!(refused("local", &[("type", "nfs")]).contains("bind mount"));
        assert!(
            refused("lv2", &[("x", "")]).ends_with("size, snapshots, pool, zone, from, fs and rpo")
        );
        assert_eq!(
            refused("nfs", &[("fs", "xfs")]),
            "volume option fs does not apply to class nfs, only to lv2, lv1 and rbd"
        );
        assert_eq!(
            refused("lv2", &[("media", "hdd")]),
            "volume option media does not apply to class lv2, only to gfs"
        );
        assert!(refused("lv1", &[("rpo", "15m")]).contains("only to lv2"));
        let error = read("zfs", &[]).unwrap_err();
        assert_eq!(error.kind, crate::Kind::NotFound);
        assert!(
            error
                .message
                .contains("nfs (also local), lv2, lv1, gfs and rbd")
        );
    }

    #[test]
    fn bad_values_are_named() {
        for (driver, name, value, why) in [
            ("nfs", "size", "big", "not a size"),
            ("nfs", "size", "", "not a size"),
            ("nfs", "size", "10X", "not a size"),
            ("nfs", "size", "0", "zero"),
            ("lv2", "size", "0G", "zero"),
            ("nfs", "size", "-5G", "negative"),
            ("nfs", "size", "10", "too small"),
            ("nfs", "size", "9000P", "larger than any"),
            ("lv2", "size", "18446744073709551615", "larger than any"),
            ("nfs", "size", "99999999P", "not a size"),
            ("nfs", "snapshots", "", "invalid snapshot schedule"),
            ("nfs", "snapshots", "yearly:1", "unknown period"),
            ("nfs", "pool", "../x", "invalid pool name"),
            ("nfs", "pool", "", "invalid pool name"),
            ("nfs", "zone", "a b", "a zone is"),
            ("nfs", "from", "", "volume name"),
            ("nfs", "from", "vol@", "invalid snapshot name"),
            ("nfs", "from", "vol@a/b", "invalid snapshot name"),
            ("nfs", "from", "a/b@c", "volume name"),
            ("lv2", "fs", "zfs", "ext4, xfs or raw"),
            ("gfs", "media", "tape", "ssd or hdd"),
            ("lv2", "rpo", "0m", "1m to 7d"),
            ("lv2", "rpo", "30s", "1m to 7d"),
            ("lv2", "rpo", "15", "1m to 7d"),
            ("lv2", "rpo", "99999999999999999999d", "1m to 7d"),
        ] {
            let message = refused(driver, &[(name, value)]);
            assert!(message.contains(why), "{name}={value}: {message}");
            assert!(
                message.contains(&format!("{value:?}")),
                "{name}={value}: {message}"
            );
            assert!(
                message.contains(&format!("option {name}")),
                "{name}={value}: {message}"
            );
        }
        assert!(refused("lv2", &[("fs", "xfs"), ("size", "100M")]).contains("xfs needs 300M"));
    }

    proptest! {
        /// Whatever is sent is understood or refused, and an accepted size keeps its bounds.
        #[test]
        fn anything(driver in "(nfs|lv2|lv1|gfs|rbd|local|[a-z]{0,4})", name in "(size|fs|from|snapshots|pool|rpo|media|zone|[a-z]{0,5})", value in "\\PC{0,12}") {
            if let Ok(spec) = read(&driver, &[(&name, &value)]) {
                let size = spec.size.unwrap_or(LEAST_SIZE);
                prop_assert!((LEAST_SIZE..=MOST_SIZE).contains(&size));
                prop_assert!(!spec.class.is_block() || size.is_multiple_of(BLOCK));
            }
        }

        #[test]
        fn sizes(bytes in 0u64.., block: bool) {
            let class = if block { Class::Lv2 } else { Class::Nfs };
            match parse_size(class, &bytes.to_string()) {
                Ok(size) => prop_assert!(size >= bytes && size - bytes < BLOCK),
                Err(_) => prop_assert!(!(LEAST_SIZE..=MOST_SIZE - BLOCK).contains(&bytes)),
            }
        }
    }
}
