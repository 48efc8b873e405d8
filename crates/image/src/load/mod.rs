//! `docker load`: docker archives and OCI layouts, in one pass over the stream.
//!
//! Layers are unpacked as they come, before it is known what they belong to; what nothing
//! refers to in the end is removed again. An archive that holds both forms (docker 25 and
//! later write such) is read as a docker archive.

mod docker;
mod oci;
pub(crate) mod spool;

use std::{collections::HashSet, io::Read, sync::Arc};

use types::{
    Digest, Error, Result,
    image::{LayerRef, NewImage, Platform},
};

use self::spool::Spool;
use crate::{
    allowance::Allowance,
    layers::{LayerGuard, LayerStore},
};

/// Told how a load goes on: an object (a layer's digest or its name in the archive) and the
/// bytes of it done so far.
pub type Progress = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// What an archive brought.
#[derive(Debug)]
pub struct Loaded {
    /// To be recorded.
    pub images: Vec<NewImage>,
    /// Layers that were not there before. Those that no record needs when all is recorded are
    /// to be removed.
    pub fresh: HashSet<Digest>,
    /// Hold these until then.
    pub guards: Vec<LayerGuard>,
}

/// Why a load came to nothing, and what it left.
#[derive(Debug)]
pub struct LoadFailed {
    pub error: Error,
    /// Layers that were not there before, to be removed unless something needs them by now.
    pub fresh: HashSet<Digest>,
}

/// Unpacks a docker archive or OCI layout, compressed or not. Layers that are trusted are not
/// read where they are on the disk. Blocking.
pub fn load(
    layers: &Arc<LayerStore>,
    allowance: Allowance,
    mut archive: impl Read + Send,
    platform: Option<&Platform>,
    progress: Progress,
) -> Result<Loaded, LoadFailed> {
    let mut spool = Spool::new(layers.clone(), allowance, progress);
    let images = spool
        .read(&mut archive)
        .and_then(|()| plan(&spool, platform));
    let fresh = spool.new_layers();
    match images {
        Ok(images) => Ok(Loaded {
            images,
            fresh,
            guards: spool.into_guards(),
        }),
        Err(error) => Err(LoadFailed { error, fresh }),
    }
}

/// The images in a spooled archive.
pub(crate) fn plan(spool: &Spool, platform: Option<&Platform>) -> Result<Vec<NewImage>> {
    if let Some(manifest) = spool.small("manifest.json")? {
        docker::plan(spool, &manifest, platform)
    } else if let Some(index) = spool.small("index.json")? {
        oci::plan(spool, &index, platform)
    } else {
        Err(Error::invalid(
            "invalid archive: does not contain a manifest.json",
        ))
    }
}

/// Fails unless an image for `image` serves somebody who asked for `wanted`.
fn check_platform(image: &Platform, wanted: Option<&Platform>) -> Result<()> {
    match wanted {
        Some(wanted) if !image.satisfies(wanted) => Err(Error::not_found(format!(
            "image was found but does not provide the specified platform ({}/{})",
            wanted.os, wanted.architecture
        ))),
        _ => Ok(()),
    }
}

/// The layer in file `path`, which the configuration says is `expected`.
fn spooled(spool: &Spool, index: usize, path: &str, expected: &Digest) -> Result<LayerRef> {
    let found = spool.layer_at(path)?;
    if found.diff_id != *expected {
        return Err(Error::invalid(format!(
            "invalid diffID for layer {index}: expected \"{expected}\", got \"{}\"",
            found.diff_id
        )));
    }
    Ok(LayerRef {
        diff_id: found.diff_id.clone(),
        size: found.size,
    })
}
