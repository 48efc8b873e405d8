//! Between a shim's frames and the agent's channels.

use futures_util::StreamExt as _;
use runtime::{AttachOptions, Attachment, Frame};
use tokio::sync::mpsc;
use types::{ContainerId, Result};

use super::LocalAgent;
use crate::{AttachTo, Attached, Input, Output};

/// Pieces under way; beyond them the container's own write waits.
const QUEUE: usize = 16;

impl From<AttachTo> for AttachOptions {
    fn from(to: AttachTo) -> Self {
        Self { stdin: to.stdin, stdout: to.stdout, stderr: to.stderr }
    }
}

impl LocalAgent {
    pub(super) async fn attach_container(&self, id: &ContainerId, to: AttachTo) -> Result<Attached> {
        let attachment = self.runtime.attach(id, to.into()).await?;
        let tty = self.live(id).is_some_and(|plan| plan.config.tty);
        Ok(pump(attachment, tty, to))
    }
}

/// Carries both directions until the process ends or the client goes.
pub(super) fn pump(attachment: Attachment, tty: bool, to: AttachTo) -> Attached {
    let Attachment { output: mut frames, input } = attachment;
    let (sender, output) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                // Gone without a word: let the shim know at once.
                () = sender.closed() => return,
            };
            let piece = match frame {
                Some(Frame::Stdout(bytes)) => Output::Stdout(bytes),
                Some(Frame::Stderr(bytes)) => Output::Stderr(bytes),
                Some(Frame::Exit(_)) | None => return,
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    let stdin = to.stdin.then(|| {
        let (sender, mut messages) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let result = match message {
                    Input::Data(bytes) => input.write(bytes).await,
                    Input::Close => input.close().await,
                };
                if result.is_err() {
                    return;
                }
            }
        });
        sender
    });
    Attached { tty, output, input: stdin }
}
