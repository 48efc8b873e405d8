//! Times `load` and `save` without a daemon: `load ARCHIVE…` in a scratch data directory.

use std::{fs::File, sync::Arc, time::Instant};

use image::LayerStore;
use types::{
    Digest,
    image::{NewImage, SaveImage},
};

fn to_save(image: NewImage) -> SaveImage {
    SaveImage {
        id: Digest::of(image.config.as_bytes()),
        config: image.config,
        layers: image.layers.into_iter().map(|one| one.diff_id).collect(),
        tags: image.references.into_iter().collect(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let dir = tempfile::tempdir()?;
        let layers = LayerStore::open(dir.path())?;
        let begin = Instant::now();
        let loaded = image::load(
            &layers,
            image::Allowance::default(),
            File::open(&path)?,
            None,
            Arc::new(|_, _| {}),
        )
        .map_err(|failed| failed.error)?;
        println!(
            "{path}: {} image(s) loaded in {:?}",
            loaded.images.len(),
            begin.elapsed()
        );
        let begin = Instant::now();
        let images: Vec<SaveImage> = loaded.images.into_iter().map(to_save).collect();
        image::save(&layers, &images, std::io::sink())?;
        println!("{path}: saved in {:?}", begin.elapsed());
        let begin = Instant::now();
        drop((layers, dir));
        println!("{path}: removed in {:?}", begin.elapsed());
    }
    Ok(())
}
