//! Entry points for fuzzing: bytes in, no panic and nothing outside of a scratch directory.
//!
//! Used by the fuzz targets in `fuzz/` and by the bounded mutation test of this crate.

use std::{io::Read as _, path::Path, sync::Arc};

use crate::{
    layers::LayerStore,
    load::{plan, spool::Spool},
};

/// Unpacks `data` as a layer in `scratch`. What is accepted must come back byte for byte.
///
/// # Panics
/// When it does not.
pub fn apply(scratch: &Path, data: &[u8]) {
    let Ok(store) = LayerStore::open(scratch) else {
        return;
    };
    let Ok(layer) = store.ingest(data, None) else {
        return;
    };
    let mut back = Vec::new();
    let read = store
        .tar_stream(&layer.meta.diff_id)
        .map(|mut stream| stream.read_to_end(&mut back));
    assert!(
        matches!(read, Ok(Ok(_))),
        "an accepted layer cannot be read: {read:?}"
    );
    assert_eq!(back.len() as u64, layer.meta.tar_size);
    let id = layer.meta.diff_id.clone();
    drop(layer);
    store.begin_sweep();
    let swept = store.sweep(&id);
    assert!(
        swept.is_ok() && !store.contains(&id),
        "an accepted layer cannot be removed: {swept:?}"
    );
}

/// Reads `data` as an image archive in `scratch`, up to what would be recorded.
pub fn load(scratch: &Path, data: &[u8]) {
    let Ok(store) = LayerStore::open(scratch) else {
        return;
    };
    let mut spool = Spool::new(
        store.clone(),
        crate::Allowance::default(),
        Arc::new(|_, _| {}),
    );
    if spool.read(&mut &*data).is_ok() {
        let _ = plan(&spool, None);
    }
    let layers = spool.new_layers();
    drop(spool);
    store.begin_sweep();
    for layer in layers {
        assert!(
            store.sweep(&layer).is_ok() && !store.contains(&layer),
            "layer {layer} cannot be removed"
        );
    }
}
