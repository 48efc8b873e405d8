//! `kra volume create`.

use std::collections::BTreeMap;

use clap::Args;
use types::native::VolumeCreate;

use crate::{
    exit::{Code, Failure, Outcome},
    progress,
    session::Session,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  kra volume create data --size 10G
  kra volume create db --class lv2 --size 50G --fs xfs --snapshots hourly:24,daily:7
  kra volume create copy --from data@monday
  kra volume create big --pool fast --label owner=me

Classes:
  nfs   files, for many containers (default; docker's `local` is the same)
  lv2   fast local block device, for one container at a time, snapshots every hour
  lv1   the same on a redundant pool
  gfs   files, coherent over several machines";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Its name; made up without one
    name: Option<String>,
    /// The promise about its data [default: nfs]
    #[arg(short, long, visible_alias = "driver", value_name = "CLASS")]
    class: Option<String>,
    /// How much may be written: 10G, 512M [default: all of the pool; block volumes: 10G]
    #[arg(short, long, value_name = "SIZE")]
    size: Option<String>,
    /// Automatic snapshots and how many are kept: hourly:24,daily:7,weekly:4,monthly:12, or none
    #[arg(long, value_name = "SCHEDULE")]
    snapshots: Option<String>,
    /// File system inside of a block volume: ext4, xfs or raw
    #[arg(long, value_name = "FS")]
    fs: Option<String>,
    /// The pool to keep it on
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Where its machine shall be
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Fill it with a copy of a volume or a snapshot
    #[arg(long, value_name = "VOLUME[@SNAPSHOT]")]
    from: Option<String>,
    /// Of a gfs volume: ssd or hdd
    #[arg(long, value_name = "MEDIA")]
    media: Option<String>,
    /// Of an lv2 volume: how much time of writes may be lost with the node, such as 15m
    #[arg(long, value_name = "TIME")]
    rpo: Option<String>,
    /// Any option by its name, as docker's -o
    #[arg(long = "opt", value_name = "NAME=VALUE")]
    opts: Vec<String>,
    /// A label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
}

pub(crate) async fn run(session: &Session, options: Options) -> Outcome {
    let wanted = request(options)?;
    let volume = progress::waiting("making the volume", session.client.volume_create(&wanted))
        .await
        .map_err(|error| {
            Failure::from(error).hint_if(Code::Invalid, || {
                "kra volume create --help explains the options".into()
            })
        })?;
    term::line(volume.name.as_str())?;
    Ok(())
}

fn request(options: Options) -> Outcome<VolumeCreate> {
    let mut all = BTreeMap::new();
    for pair in options.opts {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--opt {pair}: want NAME=VALUE")))?;
        all.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in [
        ("size", options.size),
        ("snapshots", options.snapshots),
        ("fs", options.fs),
        ("pool", options.pool),
        ("zone", options.zone),
        ("from", options.from),
        ("media", options.media),
        ("rpo", options.rpo),
    ] {
        let Some(value) = value else { continue };
        if all.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!(
                "--{name} and --opt {name}=… say the same thing twice"
            )));
        }
    }
    let labels = options
        .labels
        .into_iter()
        .map(|label| match label.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (label, String::new()),
        })
        .collect();
    Ok(VolumeCreate {
        name: options.name,
        class: options.class,
        options: all,
        labels,
    })
}
