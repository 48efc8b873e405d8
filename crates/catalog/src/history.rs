//! `docker history`: the steps that made an image, newest first.

use types::{Digest, Namespace, Reference, Result, Time};

use crate::{catalog::Catalog, record::Image};

/// One row of `docker history`.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// `None` is shown as `<missing>`.
    pub id: Option<Digest>,
    pub created: Time,
    pub created_by: String,
    /// Familiar references, for rows that are images.
    pub tags: Vec<String>,
    /// Bytes of the step's layer.
    pub size: u64,
    pub comment: String,
}

/// The rows of one image, its own id at the newest.
fn rows(image: &Image) -> Vec<HistoryRow> {
    let mut layers = image.layers.iter();
    let mut rows: Vec<HistoryRow> = Vec::new();
    for step in &image.config.history {
        let size = if step.empty_layer {
            0
        } else {
            layers.next().map_or(0, |layer| layer.size)
        };
        rows.push(HistoryRow {
            id: None,
            created: step.created.unwrap_or_default(),
            created_by: step.created_by.clone(),
            tags: Vec::new(),
            size,
            comment: step.comment.clone(),
        });
    }
    if let Some(newest) = rows.last_mut() {
        newest.id = Some(image.id.clone());
    }
    rows.reverse();
    rows
}

impl Catalog {
    /// The history of image `name`, newest first.
    pub async fn history(&self, ns: &Namespace, name: &str) -> Result<Vec<HistoryRow>> {
        let index = self.index(ns).await?;
        let image = index.resolve(name)?;
        let mut rows = rows(&image);
        // Images that this one was committed from are named where their steps end.
        let (mut at, mut ancestor) = (0, Some(image));
        while let Some(image) = ancestor {
            if let Some(row) = rows.get_mut(at) {
                row.id = Some(image.id.clone());
                row.tags = index
                    .references_of(&image.id)
                    .tags
                    .iter()
                    .map(Reference::familiar)
                    .collect();
            }
            ancestor = image
                .parent
                .as_ref()
                .and_then(|parent| index.images.get(parent))
                .cloned();
            if let Some(parent) = &ancestor {
                let steps = image
                    .config
                    .history
                    .len()
                    .saturating_sub(parent.config.history.len());
                at += steps.max(1);
            }
        }
        Ok(rows)
    }
}
