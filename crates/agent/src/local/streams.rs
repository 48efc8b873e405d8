//! Between a shim's frames and the agent's channels.

use std::time::Duration;

use futures_util::StreamExt as _;
use runtime::{AttachOptions, Attachment, Frame};
use tokio::sync::mpsc;
use types::{ContainerId, Result};

use super::LocalAgent;
use crate::{AttachTo, Attached, Input, Output};

/// Pieces under way; beyond them the container's own write waits.
const QUEUE: usize = 16;
/// How long an announced start may take to come.
const START_PATIENCE: Duration = Duration::from_secs(15);

impl From<AttachTo> for AttachOptions {
    fn from(to: AttachTo) -> Self {
        Self {
            stdin: to.stdin,
            stdout: to.stdout,
            stderr: to.stderr,
        }
    }
}

impl LocalAgent {
    pub(super) async fn attach_container(
        &self,
        id: &ContainerId,
        to: AttachTo,
    ) -> Result<Attached> {
        let attachment = self.attachment(id, to).await?;
        let tty = self.live(id).is_some_and(|plan| plan.config.tty);
        Ok(pump(attachment, tty, to))
    }
}

impl LocalAgent {
    async fn attachment(&self, id: &ContainerId, to: AttachTo) -> Result<Attachment> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.runtime.attach(id, to.into()).await {
                // Mounts and the network come before the process; a few milliseconds.
                Err(runtime::Error::NotRunning(_))
                    if to.await_start && begun.elapsed() < START_PATIENCE =>
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                other => return Ok(other?),
            }
        }
    }
}

/// Carries both directions until the process ends or the client goes.
pub(super) fn pump(attachment: Attachment, tty: bool, to: AttachTo) -> Attached {
    let Attachment {
        output: mut frames,
        input,
    } = attachment;
    let (sender, output) = mpsc::channel(QUEUE);
    // The shim takes the end of our writing side for the client's end.
    let open = input.clone();
    tokio::spawn(async move {
        let _open = open;
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
    Attached {
        tty,
        output,
        input: stdin,
    }
}
