//! `kra push`: sends images, and of them only what kraud lacks.

mod archive;
mod layer;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use client::{Client, Engine};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use term::Format;
use tokio_util::io::SyncIoBridge;
use types::{
    Digest, Reference,
    native::{PushBegin, PushCommit, PushImage, PushPlan},
};

use self::{
    archive::{Image, Source},
    layer::{Bases, Push},
};
use crate::{
    exit::{Code, Failure, Outcome},
    project::{Project, files},
    session::{Session, variable},
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
    let done = match &options.archive {
        Some(path) => {
            let source = opened(path.clone()).await?;
            let mut images = source.images()?;
            rename(&mut images, options.name.as_deref())?;
            from_source(&session.client, &view, &source, images).await?
        }
        None => {
            let project = match options.images.as_slice() {
                [] => Some(Project::load(&options.files)?),
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

/// As networks and disks are sold.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

async fn opened(path: PathBuf) -> Outcome<Source> {
    let open = move || match path.as_os_str() == "-" {
        true => Source::of_stream(io::stdin())
            .map_err(|error| Failure::io("reading standard input", error)),
        false => Source::open(&path),
    };
    tokio::task::spawn_blocking(open)
        .await
        .unwrap_or_else(|error| Err(Failure::io("reading images", io::Error::other(error))))
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
        match engine.image(name).await.map_err(Failure::from)? {
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
    let plan = begin(&session.client, wanted).await?;
    let mut done = Vec::new();
    let mut unknown = Vec::new();
    for (image, needs) in wanted.iter().zip(&plan.images) {
        if !needs.known {
            unknown.push(image.reference.familiar());
            continue;
        }
        commit(
            &session.client,
            &plan.session,
            &image.reference,
            &image.id,
            None,
        )
        .await?;
        done.push(Done {
            image: image.reference.familiar(),
            id: image.id.clone(),
            known: true,
            sent_bytes: 0,
            total_bytes: image.total,
            seconds: begun.elapsed().as_secs_f64(),
            layers: image.layers.iter().map(there).collect(),
        });
    }
    if unknown.is_empty() {
        return Ok(done);
    }
    let bar = view.waiting("reading images from the engine");
    let archive = SyncIoBridge::new(Box::pin(
        engine.save(&unknown).await.map_err(Failure::from)?,
    ));
    let source = tokio::task::spawn_blocking(move || Source::of_stream(archive))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| Failure::io("reading images from the engine", error))?;
    bar.finish_and_clear();
    let mut images = source.images()?;
    for image in &mut images {
        image
            .references
            .retain(|reference| unknown.contains(&reference.familiar()));
    }
    images.retain(|image| !image.references.is_empty());
    done.extend(from_source(&session.client, view, &source, images).await?);
    Ok(done)
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

async fn commit(
    client: &Client,
    session: &str,
    reference: &Reference,
    id: &Digest,
    config: Option<String>,
) -> Outcome {
    let wanted = PushCommit {
        session: session.to_owned(),
        reference: reference.clone(),
        id: id.clone(),
        config,
    };
    client.push_commit(&wanted).await?;
    Ok(())
}

fn there(layer: &Digest) -> DoneLayer {
    DoneLayer {
        layer: layer.clone(),
        known: true,
        sent_bytes: 0,
    }
}

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
        let needs = plan.images.first().cloned();
        let known = needs.as_ref().is_some_and(|needs| needs.known);
        let missing = needs.map(|needs| needs.missing).unwrap_or_default();
        let sent = Arc::new(AtomicU64::new(0));
        let mut push = Push {
            client: client.clone(),
            session: plan.session.clone(),
            bases: Arc::default(),
            sent: sent.clone(),
        };
        if !plan.bases.is_empty() && !missing.is_empty() {
            let prefixes = client.push_prefixes(&plan.bases).await?;
            push.bases = Arc::new(Bases::new(plan.bases, &prefixes).unwrap_or_default());
        }
        let mut layers = Vec::new();
        for layer in &image.layers {
            if !missing.contains(&layer.diff_id)
                || layers
                    .iter()
                    .any(|done: &DoneLayer| done.layer == layer.diff_id)
            {
                layers.push(there(&layer.diff_id));
                continue;
            }
            let before = sent.load(Ordering::Relaxed);
            one_layer(&push, view, source, layer).await?;
            layers.push(DoneLayer {
                layer: layer.diff_id.clone(),
                known: false,
                sent_bytes: sent.load(Ordering::Relaxed) - before,
            });
        }
        for reference in &image.references {
            let config = (!known).then(|| image.config.clone());
            sent.fetch_add(
                config.as_ref().map_or(0, |config| config.len() as u64),
                Ordering::Relaxed,
            );
            commit(client, &plan.session, reference, &image.id, config).await?;
        }
        done.push(Done {
            image: reference.familiar(),
            id: image.id,
            known,
            sent_bytes: sent.load(Ordering::Relaxed),
            total_bytes: wanted.total,
            seconds: begun.elapsed().as_secs_f64(),
            layers,
        });
    }
    Ok(done)
}

async fn one_layer(push: &Push, view: &View, source: &Source, layer: &archive::Layer) -> Outcome {
    let bar = view.layer(&layer.diff_id, source.length(layer));
    let send = |push: Push| {
        let (source, layer, moving) = (source.clone(), layer.clone(), bar.clone());
        let diff_id = layer.diff_id.clone();
        async move {
            let tar = move || source.layer(&layer).map(|(tar, _)| tar);
            push.layer(&diff_id, tar, move |bytes| moving.inc(bytes))
                .await
        }
    };
    let mut outcome = send(push.clone()).await;
    // Two chunks with the same start are that rare; then all are named in full.
    let wrong = |failure: &Failure| failure.code == Code::Invalid;
    if outcome.as_ref().is_err_and(wrong) && !push.bases.layers.is_empty() {
        bar.set_position(0);
        outcome = send(Push {
            bases: Arc::default(),
            ..push.clone()
        })
        .await;
    }
    bar.finish_and_clear();
    let total = outcome?;
    view.pushed(&layer.diff_id, total);
    Ok(())
}

/// What the user sees meanwhile, on standard error.
struct View {
    bars: MultiProgress,
    terminal: bool,
    quiet: bool,
}

impl View {
    fn new(output: Format) -> Self {
        Self {
            bars: MultiProgress::new(),
            terminal: io::stderr().is_terminal(),
            quiet: matches!(output, Format::Json),
        }
    }

    fn say(&self, words: &str) {
        if self.terminal {
            // Beside bars a line must not be printed over one.
            let _ = self.bars.println(words);
        } else if !self.quiet {
            eprintln!("{words}");
        }
    }

    fn waiting(&self, what: &str) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = self
            .bars
            .add(ProgressBar::new_spinner().with_message(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn layer(&self, layer: &Digest, length: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = self.bars.add(ProgressBar::new(length));
        let template = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(layer.hex()[..12].to_owned());
        bar
    }

    fn pushed(&self, layer: &Digest, total: u64) {
        self.say(&format!(
            "{}: pushed ({})",
            &layer.hex()[..12],
            term::bytes(total)
        ));
    }
}
