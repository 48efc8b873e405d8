//! `docker import`: what an image of a root file system's tar says of itself.

use types::{
    Config, Digest, Reference, Result, Time,
    image::{HistoryEntry, ImageConfig, LayerRef, NewImage, Platform, RootFs},
};

/// An image of one layer, to be recorded. `config` is the container configuration that
/// `--change` instructions made.
pub fn imported(
    layer: LayerRef,
    reference: Option<&Reference>,
    message: &str,
    config: Config,
    platform: Platform,
) -> Result<NewImage> {
    let image = image_config(message, config, platform, layer.diff_id.clone());
    Ok(NewImage {
        config: image.to_text()?,
        layers: vec![layer],
        references: reference
            .map(|reference| reference.clone().or_latest())
            .into_iter()
            .collect(),
        ..NewImage::default()
    })
}

/// The configuration of an imported image.
fn image_config(message: &str, config: Config, platform: Platform, layer: Digest) -> ImageConfig {
    let Platform {
        os,
        architecture,
        variant,
    } = platform;
    let created = Some(Time::now());
    ImageConfig {
        architecture,
        variant,
        os,
        config: Some(config),
        comment: message.to_owned(),
        created,
        history: vec![HistoryEntry {
            created,
            comment: message.to_owned(),
            ..HistoryEntry::default()
        }],
        rootfs: RootFs {
            diff_ids: vec![layer],
            ..RootFs::default()
        },
        ..ImageConfig::default()
    }
}
