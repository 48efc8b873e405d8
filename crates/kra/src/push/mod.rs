//! `kra push`: sends images, and of them only what kraud lacks.

mod archive;
mod layer;
mod passing;
mod view;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Args;
use client::{Client, Engine};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use term::Format;
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;
use types::{
    Digest, Reference,
    native::{PushBegin, PushCommit, PushImage, PushPlan},
};

use self::{
    archive::{Image, Source},
    layer::{Bases, Push},
    passing::{Passed, Passing},
    view::{View, megabytes},
};
use crate::{
    blocking::blocking,
    exit::{Code, Failure, Outcome},
    project::{Project, files},
    session::{Session, variable},
    up,
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  kra push                          # every image of the compose project here, and the files it mounts
  kra push web:latest worker:latest
  docker save web | kra push --archive -
  kra push --archive web.tar
  kra push --archive ./oci-layout --as shop/web:1.2
  kra push -o json web | jq '.[].sent_bytes'";

/// Options of `kra push`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Images of this machine's docker or podman [default: those of the compose project here]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Take the images from an archive (docker save, OCI), a folder with an OCI layout, or `-` for
    /// standard input
    #[arg(long, value_name = "PATH", conflicts_with = "images")]
    archive: Option<PathBuf>,
    /// The name that the only image of the archive gets
    #[arg(long = "as", value_name = "IMAGE", requires = "archive")]
    name: Option<String>,
    /// A compose file of the project
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with_all = ["images", "archive"])]
    files: Vec<PathBuf>,
    /// The socket of the engine that has the images [default: docker's, else podman's]
    #[arg(long, value_name = "PATH", env = "KR_ENGINE")]
    engine: Option<PathBuf>,
    /// The most that the project's mounted files may have, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = crate::up::size, default_value = files::LIMIT)]
    upload_limit: u64,
    /// How to print what was done
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What was done for one image.
#[derive(Debug, Serialize)]
struct Done {
    image: String,
    id: Digest,
    /// Whether kraud had it already.
    known: bool,
    /// Bytes sent over the network, headers of requests not counted.
    sent_bytes: u64,
    /// Bytes of its layers.
    total_bytes: u64,
    seconds: f64,
    layers: Vec<DoneLayer>,
}

#[derive(Debug, Serialize)]
struct DoneLayer {
    layer: Digest,
    /// Whether kraud had it already.
    known: bool,
    sent_bytes: u64,
}

/// An image to push, wherever it comes from.
struct Wanted {
    reference: Reference,
    id: Digest,
    layers: Vec<Digest>,
    total: u64,
}

impl Wanted {
    fn ask(&self) -> PushImage {
        PushImage {
            reference: self.reference.clone(),
            id: self.id.clone(),
            layers: self.layers.clone(),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(session: &Session, options: &Options) -> Outcome {
    let view = View::new(options.output);
    let begun = Instant::now();
    let done = match &options.archive {
        Some(path) => {
            let source = opened(path.clone()).await?;
            let mut images = source.images()?;
            rename(&mut images, options.name.as_deref())?;
            from_source(&session.client, &view, &source, images).await?
        }
        None => {
            let project = match options.images.as_slice() {
                [] => Some(up::load(&options.files).await?),
                _ => None,
            };
            let names = match &project {
                Some(project) => project.images(),
                None => options.images.clone(),
            };
            let engine = Engine::new(socket(options.engine.clone())?);
            let wanted = look(&engine, &view, &names, project.is_none()).await?;
            let done = from_engine(session, &view, &engine, &wanted).await?;
            if let Some(project) = &project {
                let limit = options.upload_limit;
                let sent = files::upload(&session.client, project, limit, false).await;
                match sent {
                    Err(failure) if failure.code == Code::Forbidden => {
                        failure.say();
                        view.say("files: not sent; a token that may only push images cannot");
                    }
                    other => other?,
                }
            }
            done
        }
    };
    match options.output {
        Format::Json => term::json(&done)?,
        Format::Table => {
            for one in &done {
                term::print(&format!("{}\n", one.words()))?;
            }
            if done.len() > 1 {
                let sum = |bytes: fn(&Done) -> u64| megabytes(done.iter().map(bytes).sum());
                term::print(&format!(
                    "all: sent {} of {}, {:.1} s\n",
                    sum(|one| one.sent_bytes),
                    sum(|one| one.total_bytes),
                    begun.elapsed().as_secs_f64()
                ))?;
            }
        }
    }
    Ok(())
}

impl Done {
    fn words(&self) -> String {
        match self.known {
            true => format!("{}: there already, {:.1} s", self.image, self.seconds),
            false => format!(
                "{}: sent {} of {}, {:.1} s",
                self.image,
                megabytes(self.sent_bytes),
                megabytes(self.total_bytes),
                self.seconds
            ),
        }
    }
}

/// The images of a project, as far as they are on this machine; says what is done.
pub(crate) async fn project(
    session: &Session,
    project: &Project,
    engine: Option<PathBuf>,
    dry_run: bool,
) -> Outcome {
    let view = View::new(Format::Table);
    let names = project.images();
    let Ok(socket) = socket(engine) else {
        view.say("images: neither docker nor podman listens on this machine; kraud takes those that it has, and pulls others");
        return Ok(());
    };
    let engine = Engine::new(socket);
    let wanted = look(&engine, &view, &names, false).await?;
    if dry_run {
        let plan = begin(&session.client, &wanted).await?;
        for (image, needs) in wanted.iter().zip(&plan.images) {
            let name = image.reference.familiar();
            view.say(&match (needs.known, needs.missing.len()) {
                (true, _) => format!("{name}: there already"),
                (false, 0) => format!("{name}: new, and all of its layers are there"),
                (false, missing) => format!(
                    "{name}: to push, {missing} of {} layers ({})",
                    image.layers.len(),
                    megabytes(image.total)
                ),
            });
        }
        return Ok(());
    }
    for one in from_engine(session, &view, &engine, &wanted).await? {
        view.say(&one.words());
    }
    Ok(())
}

async fn opened(path: PathBuf) -> Outcome<Source> {
    let open = move || match path.as_os_str() == "-" {
        true => Source::of_stream(io::stdin())
            .map_err(|error| Failure::io("reading standard input", error)),
        false => Source::open(&path),
    };
    blocking(open).await
}

fn rename(images: &mut [Image], name: Option<&str>) -> Outcome {
    let Some(name) = name else {
        return match images.iter().find(|image| image.references.is_empty()) {
            Some(image) => Err(Failure::usage(format!(
                "image {} in the archive has no name: give it one with --as",
                image.id
            ))),
            None => Ok(()),
        };
    };
    let [image] = images else {
        return Err(Failure::usage(format!(
            "--as names one image, and the archive has {}",
            images.len()
        )));
    };
    image.references = vec![
        name.parse::<Reference>()
            .map_err(Failure::from)?
            .or_latest(),
    ];
    Ok(())
}

/// What an engine knows of images. Those that it has not are an error only if somebody has named
/// them.
async fn look(
    engine: &Engine,
    view: &View,
    names: &[String],
    explicit: bool,
) -> Outcome<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for name in names {
        let reference = name
            .parse::<Reference>()
            .map_err(Failure::from)?
            .or_latest();
        match engine.image(name).await.map_err(Failure::engine)? {
            Some(image) => wanted.push(Wanted {
                reference,
                id: image.id,
                layers: image.root_fs.layers,
                total: image.size,
            }),
            None if explicit => {
                return Err(Failure::from(types::Error::not_found(format!(
                    "no such image: {name}, in the engine at {}",
                    engine.host()
                ))));
            }
            None => view.say(&format!(
                "{name}: not on this machine; kraud pulls it when it is needed"
            )),
        }
    }
    Ok(wanted)
}

/// Images of this machine's engine.
async fn from_engine(
    session: &Session,
    view: &View,
    engine: &Engine,
    wanted: &[Wanted],
) -> Outcome<Vec<Done>> {
    let begun = Instant::now();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let client = &session.client;
    let plan = begin(client, wanted).await?;
    let (known, unknown): (Vec<_>, Vec<_>) = wanted
        .iter()
        .zip(&plan.images)
        .partition(|(_, needs)| needs.known);
    let missing: HashSet<Digest> = unknown
        .iter()
        .flat_map(|(_, needs)| needs.missing.iter().cloned())
        .collect();
    let unknown: Vec<&Wanted> = unknown.into_iter().map(|(image, _)| image).collect();
    let tagging = known.into_iter().map(async |(image, needs)| {
        let wanted = PushCommit {
            session: plan.session.clone(),
            reference: image.reference.clone(),
            id: needs.id.clone().unwrap_or_else(|| image.id.clone()),
            alias: None,
            config: None,
        };
        Ok::<_, Failure>(Done {
            image: image.reference.familiar(),
            id: commit(client, wanted).await?,
            known: true,
            sent_bytes: 0,
            total_bytes: image.total,
            seconds: begun.elapsed().as_secs_f64(),
            layers: image.layers.iter().map(there).collect(),
        })
    });
    let mut done: Vec<Done> = stream::iter(tagging).buffered(TAGS).try_collect().await?;
    if unknown.is_empty() {
        return Ok(done);
    }
    let mut push = pushing(client, &plan, !missing.is_empty()).await?;
    let passed = match passing(&push, view, engine, &unknown, &missing).await {
        // Two chunks with the same start are that rare; then all are named in full.
        Err(failure) if failure.code == Code::Invalid && !push.bases.layers.is_empty() => {
            push.bases = Arc::default();
            passing(&push, view, engine, &unknown, &missing).await
        }
        other => other,
    }?;
    let Passed { source, mut sent } = passed;
    let images = source.images()?;
    for image in unknown {
        // Podman's archives have longer names.
        let same_layers = |one: &&Image| {
            let layers = one.layers.iter().map(|layer| &layer.diff_id);
            layers.eq(&image.layers)
        };
        let found = images
            .iter()
            .find(|one| one.references.contains(&image.reference))
            .or_else(|| images.iter().find(|one| one.id == image.id))
            .or_else(|| images.iter().find(same_layers));
        let found = found.ok_or_else(|| {
            Failure::failed(format!(
                "{}: it is not in what the engine at {} gives out",
                image.reference.familiar(),
                engine.host()
            ))
        })?;
        let (layers, sent_bytes) = done_layers(&found.layers, &mut sent);
        let id = commit(
            client,
            PushCommit {
                session: plan.session.clone(),
                reference: image.reference.clone(),
                id: found.id.clone(),
                alias: source
                    .leads_to(&image.id, &found.id)
                    .then(|| image.id.clone()),
                config: Some(found.config.clone()),
            },
        )
        .await?;
        done.push(Done {
            image: image.reference.familiar(),
            id,
            known: false,
            sent_bytes: sent_bytes + found.config.len() as u64,
            total_bytes: image.total,
            seconds: begun.elapsed().as_secs_f64(),
            layers,
        });
    }
    Ok(done)
}

/// Sends the missing layers of images while the engine gives out the images.
async fn passing(
    push: &Push,
    view: &View,
    engine: &Engine,
    images: &[&Wanted],
    missing: &HashSet<Digest>,
) -> Outcome<Passed> {
    let bar = view.waiting("reading images from the engine");
    let names: Vec<String> = images
        .iter()
        .map(|image| image.reference.familiar())
        .collect();
    let archive = SyncIoBridge::new(Box::pin(
        engine.save(&names).await.map_err(Failure::engine)?,
    ));
    let known: HashSet<Digest> = images
        .iter()
        .flat_map(|image| &image.layers)
        .filter(|layer| !missing.contains(layer))
        .cloned()
        .collect();
    let (push, missing, showing) = (push.clone(), missing.clone(), view.clone());
    let passed = blocking(move || {
        let passing = Passing {
            push: &push,
            view: &showing,
            known: &known,
            missing,
        };
        passing.read(archive, &Handle::current())
    })
    .await;
    bar.finish_and_clear();
    passed
}

/// A push by its plan, with what its bases have.
async fn pushing(client: &Client, plan: &PushPlan, needs_layers: bool) -> Outcome<Push> {
    let mut bases = Bases::default();
    if needs_layers && !plan.bases.is_empty() {
        let prefixes = client.push_prefixes(&plan.bases).await?;
        bases = Bases::new(plan.bases.clone(), &prefixes).unwrap_or_default();
    }
    Ok(Push {
        client: client.clone(),
        session: plan.session.clone(),
        bases: Arc::new(bases),
        sent: Arc::default(),
    })
}

/// Where docker or podman listens.
fn socket(named: Option<PathBuf>) -> Outcome<PathBuf> {
    if let Some(named) = named {
        return Ok(named);
    }
    let of_user =
        variable("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("podman/podman.sock"));
    let candidates = [
        Some("/var/run/docker.sock".into()),
        Some("/run/docker.sock".into()),
        of_user,
        Some("/run/podman/podman.sock".into()),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|path: &PathBuf| path.exists())
        .ok_or_else(|| {
            Failure::usage(
                "neither docker nor podman listens on this machine: name the socket with --engine, or an archive with --archive",
            )
        })
}

async fn begin(client: &Client, wanted: &[Wanted]) -> Outcome<PushPlan> {
    let images = wanted.iter().map(Wanted::ask).collect();
    let plan = client.push_begin(&PushBegin { images }).await?;
    Ok(plan)
}

/// Records an image; returns its id.
async fn commit(client: &Client, wanted: PushCommit) -> Outcome<Digest> {
    Ok(client.push_commit(&wanted).await?.id)
}

fn there(layer: &Digest) -> DoneLayer {
    DoneLayer {
        layer: layer.clone(),
        known: true,
        sent_bytes: 0,
    }
}

/// What was done for the layers of an image, and the bytes of it. What was sent counts with the first
/// that has it.
fn done_layers(
    layers: &[archive::Layer],
    sent: &mut HashMap<Digest, u64>,
) -> (Vec<DoneLayer>, u64) {
    let done = |layer: &archive::Layer| match sent.remove(&layer.diff_id) {
        Some(sent_bytes) => DoneLayer {
            layer: layer.diff_id.clone(),
            known: false,
            sent_bytes,
        },
        None => there(&layer.diff_id),
    };
    let layers: Vec<DoneLayer> = layers.iter().map(done).collect();
    let sent_bytes = layers.iter().map(|layer| layer.sent_bytes).sum();
    (layers, sent_bytes)
}

/// Layers of an image that are sent at a time.
const LAYERS: usize = 2;
/// Images that are tagged at a time.
const TAGS: usize = 8;

/// Images of an archive or folder.
async fn from_source(
    client: &Client,
    view: &View,
    source: &Source,
    images: Vec<Image>,
) -> Outcome<Vec<Done>> {
    let mut done = Vec::new();
    for image in images {
        let begun = Instant::now();
        let Some(reference) = image.references.first() else {
            continue;
        };
        let wanted = Wanted {
            reference: reference.clone(),
            id: image.id.clone(),
            layers: image
                .layers
                .iter()
                .map(|layer| layer.diff_id.clone())
                .collect(),
            total: image.layers.iter().map(|layer| source.length(layer)).sum(),
        };
        let plan = begin(client, std::slice::from_ref(&wanted)).await?;
        let (known, missing) = match plan.images.first() {
            Some(needs) => (needs.known, needs.missing.clone()),
            None => (false, Vec::new()),
        };
        let push = pushing(client, &plan, !missing.is_empty()).await?;
        // A layer may be in an image several times.
        let mut unsent: HashSet<&Digest> = missing.iter().collect();
        let layers = image.layers.iter();
        let sending = layers
            .filter(|layer| unsent.remove(&layer.diff_id))
            .map(|layer| one_layer(&push, view, source, layer));
        let mut sent: HashMap<Digest, u64> = stream::iter(sending)
            .buffer_unordered(LAYERS)
            .try_collect()
            .await?;
        let (layers, mut sent_bytes) = done_layers(&image.layers, &mut sent);
        for reference in &image.references {
            let config = (!known).then(|| image.config.clone());
            sent_bytes += config.as_ref().map_or(0, |config| config.len() as u64);
            commit(
                client,
                PushCommit {
                    session: plan.session.clone(),
                    reference: reference.clone(),
                    id: image.id.clone(),
                    alias: None,
                    config,
                },
            )
            .await?;
        }
        done.push(Done {
            image: reference.familiar(),
            id: image.id,
            known,
            sent_bytes,
            total_bytes: wanted.total,
            seconds: begun.elapsed().as_secs_f64(),
            layers,
        });
    }
    Ok(done)
}

/// Sends a layer; returns it with how many bytes that took.
async fn one_layer(
    push: &Push,
    view: &View,
    source: &Source,
    layer: &archive::Layer,
) -> Outcome<(Digest, u64)> {
    let sent: Arc<AtomicU64> = Arc::default();
    let bar = view.layer(&layer.diff_id, source.length(layer), sent.clone());
    let send = |push: Push| {
        let (source, layer, moving) = (source.clone(), layer.clone(), bar.clone());
        async move {
            let (feed, sending) = push.begin(&layer.diff_id);
            let read = tokio::task::spawn_blocking(move || {
                let tar = source.layer(&layer)?;
                feed.read(tar, &move |bytes| moving.moved(bytes))
            })
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
            sending.end(read).await
        }
    };
    let with = |bases: Arc<Bases>| Push {
        bases,
        sent: sent.clone(),
        ..push.clone()
    };
    let mut outcome = send(with(push.bases.clone())).await;
    // Two chunks with the same start are that rare; then all are named in full.
    let wrong = |failure: &Failure| failure.code == Code::Invalid;
    if outcome.as_ref().is_err_and(wrong) && !push.bases.layers.is_empty() {
        bar.again();
        outcome = send(with(Arc::default())).await;
    }
    bar.end(outcome.as_ref().ok().copied());
    outcome?;
    Ok((layer.diff_id.clone(), sent.load(Ordering::Relaxed)))
}
