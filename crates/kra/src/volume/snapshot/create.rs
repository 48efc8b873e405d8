//! `kra volume snapshot create`.

use clap::Args;
use term::Format;
use types::native::SnapshotCreate;

use crate::{
    exit::{Code, Failure, Outcome},
    progress,
    session::Session,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  kra volume snapshot create data
  kra volume snapshot create data before-upgrade
  kra volume snapshot create web db cache --name deploy-42

With --name all that stands there are volumes, and their snapshots are of one moment. Without
--name it is one volume and, if wanted, the snapshot's name.";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The volume and the snapshot's name, or with --name all volumes
    #[arg(required = true, value_name = "VOLUME [NAME]")]
    words: Vec<String>,
    /// The name of the snapshots of all volumes
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How to print them: the table has the names
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(session: &Session, options: Options) -> Outcome {
    let wanted = request(options.words, options.name)?;
    let taken = progress::waiting(
        "taking the snapshot",
        session.client.snapshot_create(&wanted),
    )
    .await
    .map_err(|error| {
        Failure::from(error)
            .hint_if(Code::NotFound, || "kra volume ls lists the volumes".into())
            .hint_if(Code::Conflict, || {
                "choose another name, or none: then one is made up".into()
            })
    })?;
    match options.output {
        Format::Json => term::json(&taken)?,
        Format::Table => {
            for snapshot in &taken {
                term::line(&match taken.len() {
                    1 => snapshot.name.to_string(),
                    _ => format!("{}@{}", snapshot.volume, snapshot.name),
                })?;
            }
        }
    }
    Ok(())
}

fn request(mut words: Vec<String>, name: Option<String>) -> Outcome<SnapshotCreate> {
    let name = match (name, words.len()) {
        (Some(name), _) => Some(name),
        (None, 1) => None,
        (None, 2) => words.pop(),
        (None, _) => {
            return Err(Failure::usage(
                "snapshots of several volumes need a name for all of them: --name NAME",
            ));
        }
    };
    Ok(SnapshotCreate {
        volumes: words,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let ask = |words: &[&str], name: Option<&str>| {
            request(
                words.iter().map(|word| (*word).to_owned()).collect(),
                name.map(str::to_owned),
            )
        };
        for (words, name, volumes, named) in [
            (&["a"][..], None, 1, None),
            (&["a", "x"], None, 1, Some("x")),
            (&["a", "b"], Some("x"), 2, Some("x")),
            (&["a"], Some("x"), 1, Some("x")),
        ] {
            let wanted = ask(words, name).unwrap();
            assert_eq!(
                (wanted.volumes.len(), wanted.name.as_deref()),
                (volumes, named)
            );
        }
        assert_eq!(ask(&["a", "b", "c"], None).unwrap_err().code, Code::Usage);
    }
}
