//! A volume's files: `/volumes/{volume}/files`, `stat` and `archive`.

use agent::PathStat;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode},
    response::Response,
};
use base64::Engine as _;
use types::{
    Error, Result,
    native::{self, FileKind, FileList, PATH_STAT},
};

use super::table::Call;
use crate::docker::{call, upload};

/// `GET /volumes/{volume}/files`
pub(super) async fn list(call: Call) -> Result<Response> {
    let files = call
        .state
        .volume_files(
            &call.scope(),
            call.name(0),
            call.query.nonempty("snapshot"),
            call.needed("path")?,
        )
        .await?;
    call::json(&FileList { files })
}

async fn archive(call: Call) -> Result<(native::PathStat, agent::Reader)> {
    let (stat, tar) = call
        .state
        .volume_archive_get(
            &call.scope(),
            call.name(0),
            call.query.nonempty("snapshot"),
            call.needed("path")?,
        )
        .await?;
    Ok((path_stat(stat), tar))
}

/// `DELETE /volumes/{volume}/files`
pub(super) async fn remove(call: Call) -> Result<Response> {
    call.state
        .volume_file_remove(&call.scope(), call.name(0), call.needed("path")?)
        .await?;
    call::empty(StatusCode::NO_CONTENT)
}

/// `GET /volumes/{volume}/stat`
pub(super) async fn stat(call: Call) -> Result<Response> {
    // The archive is never begun: it is made as it is read.
    call::json(&archive(call).await?.0)
}

/// `GET /volumes/{volume}/archive`
pub(super) async fn get(call: Call) -> Result<Response> {
    let (stat, tar) = archive(call).await?;
    let encoding =
        |error: &dyn std::fmt::Display| Error::system(format!("encoding a path's facts: {error}"));
    let text = serde_json::to_vec(&stat).map_err(|error| encoding(&error))?;
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    let mut response = call::stream("application/x-tar", upload::body(tar))?;
    response.headers_mut().insert(
        PATH_STAT,
        HeaderValue::try_from(text).map_err(|error| encoding(&error))?,
    );
    Ok(response)
}

/// `GET /volumes/{volume}/chunks`
pub(super) async fn chunks(call: Call) -> Result<Response> {
    let path = call.needed("path")?;
    let chunks = call
        .state
        .volume_file_chunks(&call.scope(), call.name(0), path)
        .await?;
    call::stream("application/octet-stream", Body::from(chunks))
}

/// `PUT /volumes/{volume}/file`
pub(super) async fn put_file(mut call: Call) -> Result<Response> {
    let upload = upload::Upload::new(call.take_body());
    let wanted: native::FilePut = serde_json::from_str(call.needed("file")?)
        .map_err(|error| Error::invalid(format!("invalid parameter file: {error}")))?;
    let done = call
        .state
        .volume_file_put(&call.scope(), call.name(0), &wanted, upload.reader())
        .await;
    if done.is_err() {
        upload.drain().await;
    }
    done?;
    call::empty(StatusCode::NO_CONTENT)
}

/// `PUT /volumes/{volume}/archive`
pub(super) async fn put(mut call: Call) -> Result<Response> {
    let upload = upload::Upload::new(call.take_body());
    let path = call.needed("path")?;
    let done = call
        .state
        .volume_archive_put(&call.scope(), call.name(0), path, upload.reader())
        .await;
    if done.is_err() {
        upload.drain().await;
    }
    done?;
    call::empty(StatusCode::NO_CONTENT)
}

/// From the bits of Go's `os.FileMode`, which docker's clients want.
fn path_stat(stat: PathStat) -> native::PathStat {
    let is = |bit: u32| stat.mode & (1 << bit) != 0;
    let kind = match () {
        () if is(31) => FileKind::Directory,
        () if is(27) => FileKind::Symlink,
        () if is(26) => FileKind::Device,
        () if is(25) => FileKind::Fifo,
        () if is(24) => FileKind::Socket,
        () => FileKind::File,
    };
    let special = [(23, 0o4000), (22, 0o2000), (20, 0o1000)];
    let special: u32 = special
        .into_iter()
        .filter(|(bit, _)| is(*bit))
        .map(|(_, mode)| mode)
        .sum();
    native::PathStat {
        name: stat.name,
        kind,
        size: u64::try_from(stat.size).unwrap_or(0),
        mode: stat.mode & 0o777 | special,
        modified: stat.mtime,
        target: Some(stat.link_target).filter(|target| !target.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use types::Time;

    use super::*;

    #[test]
    fn modes_of_go() {
        let stat = |mode: u32| {
            let stat = path_stat(PathStat {
                name: "x".into(),
                size: 1,
                mode,
                mtime: Time::ZERO,
                link_target: String::new(),
            });
            (stat.kind, stat.mode)
        };
        assert_eq!(stat(0o644), (FileKind::File, 0o644));
        assert_eq!(
            stat(1 << 31 | 1 << 20 | 0o777),
            (FileKind::Directory, 0o1777)
        );
        assert_eq!(stat(1 << 27 | 0o777), (FileKind::Symlink, 0o777));
        assert_eq!(stat(1 << 26 | 1 << 21 | 0o600), (FileKind::Device, 0o600));
        assert_eq!(stat(1 << 23 | 1 << 22 | 0o755), (FileKind::File, 0o6755));
    }
}
