//! Times `load` and `save` without a daemon: `load ARCHIVE…` in a scratch data directory.

#[path = "../tests/common/mod.rs"]
#[allow(clippy::unwrap_used, reason = "an example")]
mod common;

use std::{sync::Arc, time::Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let images = common::images().await;
        let begin = Instant::now();
        let archive = tokio::fs::File::open(&path).await?;
        let loaded = images
            .store
            .load(&images.ns, archive, None, Arc::new(|_, _| {}))
            .await?;
        println!(
            "{path}: {} image(s) loaded in {:?}",
            loaded.len(),
            begin.elapsed()
        );
        let begin = Instant::now();
        let names: Vec<String> = loaded.iter().map(|image| image.id.to_string()).collect();
        images
            .store
            .save(&images.ns, &names, tokio::io::sink())
            .await?;
        println!("{path}: saved in {:?}", begin.elapsed());
        let begin = Instant::now();
        drop(images);
        println!("{path}: removed in {:?}", begin.elapsed());
    }
    Ok(())
}
