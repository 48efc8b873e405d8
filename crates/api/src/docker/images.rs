//! `/images` and `/distribution`.

use std::sync::{Arc, Mutex, PoisonError};

use agent::images::{Credentials, LoadProgress, Progress};
use axum::{http::StatusCode, response::Response};
use engine::library::{LoadReport, Report};
use tokio::sync::mpsc;
use types::{Error, Reference, Result};

use super::{
    call, convert, lines,
    query::Query,
    router::Call,
    upload,
    wire::{image::ImagesPruned, progress::JsonMessage},
};

const TAR: &str = "application/x-tar";

/// The parameter `changes`: Dockerfile instructions, one or more lines each time.
pub(super) fn changes(query: &Query) -> Vec<String> {
    query
        .all("changes")
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `GET /images/json`
pub(super) async fn list(call: Call) -> Result<Response> {
    let scope = call.scope();
    let mut filters = call.query.filters()?;
    if let Some(pattern) = call.query.nonempty("filter").filter(|_| !call.since(41)) {
        filters.add("reference", pattern);
    }
    let views = call
        .state
        .image_list(&scope, call.query.flag("all"), &filters)
        .await?;
    let shared = if call.query.flag("shared-size") {
        call.state.image_usage(&scope).await?
    } else {
        Vec::new()
    };
    let shared_size = |image: &catalog::Image| {
        let usage = shared.iter().find(|usage| usage.image.id == image.id);
        usage.map_or(-1, |usage| {
            i64::try_from(usage.shared_size).unwrap_or(i64::MAX)
        })
    };
    let summaries: Vec<_> = views
        .iter()
        .map(|view| convert::image::summary(view, -1, shared_size(&view.image), call.version))
        .collect();
    call::json(&summaries)
}

/// `GET /images/{name}/json`
pub(super) async fn inspect(call: Call) -> Result<Response> {
    let view = call.state.image_inspect(&call.scope(), &call.name).await?;
    call::json(&convert::image::inspect(&view, call.version))
}

/// `GET /images/{name}/history`
pub(super) async fn history(call: Call) -> Result<Response> {
    let rows = call.state.image_history(&call.scope(), &call.name).await?;
    call::json(
        &rows
            .into_iter()
            .map(convert::image::history)
            .collect::<Vec<_>>(),
    )
}

/// The reference that `repo` and `tag` name together.
fn repository(repo: &str, tag: &str) -> Result<Reference> {
    let reference: Reference = repo.parse()?;
    if reference.digest().is_some() {
        return Err(Error::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    if tag.is_empty() {
        Ok(reference.or_latest())
    } else {
        reference.with_tag(tag)
    }
}

/// `POST /images/{name}/tag`
pub(super) async fn tag(call: Call) -> Result<Response> {
    let reference = repository(call.query.text("repo"), call.query.text("tag"))?;
    call.state
        .image_tag(&call.scope(), &call.name, &reference)
        .await?;
    call::empty(StatusCode::CREATED)
}

/// `DELETE /images/{name}`
pub(super) async fn remove(call: Call) -> Result<Response> {
    if call.name.trim().is_empty() {
        return Err(Error::invalid("image name cannot be blank"));
    }
    let (force, prune) = (call.query.flag("force"), !call.query.flag("noprune"));
    let removals = call
        .state
        .image_remove(&call.scope(), &call.name, force, prune)
        .await?;
    call::json(
        &removals
            .into_iter()
            .map(convert::image::removal)
            .collect::<Vec<_>>(),
    )
}

/// `POST /images/prune`
pub(super) async fn prune(call: Call) -> Result<Response> {
    let (removals, space_reclaimed) = call
        .state
        .image_prune(&call.scope(), &call.query.filters()?)
        .await?;
    let deleted: Vec<_> = removals.into_iter().map(convert::image::removal).collect();
    call::json(&ImagesPruned {
        images_deleted: Some(deleted).filter(|list| !list.is_empty()),
        space_reclaimed,
    })
}

/// `GET /images/search`
pub(super) async fn search(_: Call) -> Result<Response> {
    Err(Error::not_implemented(
        "kraud does not search registries: use the registry's own web page or API",
    ))
}

/// `GET /images/{name}/get`
pub(super) async fn save_one(call: Call) -> Result<Response> {
    let names = vec![call.name.clone()];
    save(call, names).await
}

/// `GET /images/get`
pub(super) async fn save_many(call: Call) -> Result<Response> {
    let names: Vec<String> = call
        .query
        .all("names")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    save(call, names).await
}

async fn save(call: Call, names: Vec<String>) -> Result<Response> {
    let scope = call.scope();
    call.state.images_must_exist(&scope, &names).await?;
    let archive = call.state.image_save(&scope, &names).await?;
    call::stream(TAR, upload::body(archive))
}

/// `POST /images/load`
pub(super) async fn load(mut call: Call) -> Result<Response> {
    let (sender, receiver) = mpsc::channel(64);
    let quiet = call.query.flag("quiet");
    let archive = upload::reader(call.take_body());
    let (engine, scope) = (call.state.clone(), call.scope());
    let platform = call.query.nonempty("platform").map(str::to_owned);
    let progress = load_progress(sender.clone(), quiet);
    let task = tokio::spawn(async move {
        match engine
            .image_load(&scope, archive, platform.as_deref(), progress)
            .await
        {
            Ok(images) => {
                for loaded in images {
                    let mut lines: Vec<String> = loaded
                        .references
                        .iter()
                        .map(|reference| format!("Loaded image: {}\n", reference.familiar()))
                        .collect();
                    if lines.is_empty() {
                        lines.push(format!("Loaded image ID: {}\n", loaded.id));
                    }
                    for line in lines {
                        let _ = sender.send(Ok(JsonMessage::stream(line))).await;
                    }
                }
            }
            // docker's answer to a load is 200 whatever the archive is like.
            Err(error) => {
                tracing::info!(%error, "an archive could not be loaded");
                drop(sender.send(Ok(JsonMessage::error(&error.message))).await);
            }
        }
    });
    lines::respond_to_task(receiver, task).await
}

/// Says how far a load is, where the client wants to hear it; never waits for the client.
fn load_progress(sender: mpsc::Sender<Result<JsonMessage>>, quiet: bool) -> LoadReport {
    let last = Mutex::new(std::time::Instant::now());
    Arc::new(move |LoadProgress { object, done }| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet || last.elapsed() < std::time::Duration::from_millis(100) {
            return;
        }
        *last = std::time::Instant::now();
        let id: String = object
            .trim_start_matches("sha256:")
            .chars()
            .take(12)
            .collect();
        let _ = sender.try_send(Ok(JsonMessage::layer(id, "Loading layer", done, 0)));
    })
}

/// `POST /images/create`
pub(super) async fn create(call: Call) -> Result<Response> {
    if call.query.nonempty("fromImage").is_some() {
        return pull(call).await;
    }
    match call.query.text("fromSrc") {
        "-" => import(call).await,
        "" => Err(Error::invalid("one of fromImage and fromSrc must be given")),
        url => Err(Error::not_implemented(format!(
            "importing from {url}: download it first, then: docker import FILE"
        ))),
    }
}

async fn import(mut call: Call) -> Result<Response> {
    let repo = call.query.text("repo").to_owned();
    let reference = if repo.is_empty() {
        None
    } else {
        Some(repository(&repo, call.query.text("tag"))?)
    };
    let (changes, message) = (changes(&call.query), call.query.text("message").to_owned());
    let platform = call.query.nonempty("platform").map(str::to_owned);
    let upload = upload::Upload::new(call.take_body());
    let (engine, scope) = (call.state.clone(), call.scope());
    let (sender, receiver) = mpsc::channel(4);
    let task = tokio::spawn(async move {
        let result = engine
            .image_import(
                &scope,
                upload.reader(),
                reference.as_ref(),
                &message,
                &changes,
                platform.as_deref(),
            )
            .await;
        if result.is_err() {
            upload.drain().await;
        }
        let _ = sender
            .send(result.map(|id| JsonMessage::status(id.to_string())))
            .await;
    });
    lines::respond_to_task(receiver, task).await
}

/// Who the client says it is; docker ignores a header that makes no sense.
fn credentials(call: &Call) -> Credentials {
    call.header("x-registry-auth")
        .and_then(|text| Credentials::from_header(text).ok())
        .unwrap_or_default()
}

/// Passes a transfer's progress on; a client that reads slowly misses counters, no words.
fn transfer_report(sender: mpsc::UnboundedSender<Result<JsonMessage>>) -> Report {
    Arc::new(move |progress: Progress| {
        let message =
            JsonMessage::transfer(progress.id, progress.status, progress.bytes, progress.aux);
        let _ = sender.send(Ok(message));
    })
}

async fn pull(call: Call) -> Result<Response> {
    let name = call.query.text("fromImage");
    let tag = call.query.text("tag");
    let reference: Reference = match tag {
        "" => name.parse()?,
        tag if tag.starts_with("sha256:") => name.parse::<Reference>()?.with_digest(tag.parse()?),
        tag => name.parse::<Reference>()?.with_tag(tag)?,
    };
    // No tag at all means every tag, since API 1.0; the CLI always sends one.
    let all_tags = reference.tag().is_none() && reference.digest().is_none();
    let platform = call.query.nonempty("platform").map(str::to_owned);
    let (engine, scope, credentials) = (call.state.clone(), call.scope(), credentials(&call));
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let report = transfer_report(sender.clone());
        let done = engine
            .image_pull(
                &scope,
                &reference,
                all_tags,
                platform.as_deref(),
                credentials,
                report,
            )
            .await;
        if let Err(error) = done {
            let _ = sender.send(Err(error));
        }
    });
    lines::respond_to_transfer(receiver, task).await
}

/// `POST /images/{name}/push`
pub(super) async fn push(call: Call) -> Result<Response> {
    let name: Reference = call.name.parse()?;
    let tag = call.query.text("tag");
    let (reference, all_tags) = match tag {
        "" => (name.clone(), name.tag().is_none()),
        tag => (name.with_tag(tag)?, false),
    };
    let (engine, scope, credentials) = (call.state.clone(), call.scope(), credentials(&call));
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let report = transfer_report(sender.clone());
        if let Err(error) = engine
            .image_push(&scope, &reference, all_tags, credentials, report)
            .await
        {
            let _ = sender.send(Err(error));
        }
    });
    lines::respond_to_transfer(receiver, task).await
}

/// `GET /distribution/{name}/json`
pub(super) async fn distribution(call: Call) -> Result<Response> {
    let reference: Reference = call.name.parse()?;
    let inspection = call
        .state
        .distribution_inspect(&call.scope(), &reference, &credentials(&call))
        .await?;
    call::json(&inspection)
}
