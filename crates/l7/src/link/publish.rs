// SPDX-License-Identifier: Apache-2.0
//! The agent's end: the newest snapshot goes to the proxy, and its status comes back.

use super::frame::{LinkError, read, write};
use super::{FromProxy, SPOKEN, Status, ToProxy};
use crate::{Snapshot, Update, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// A proxy compiles hundreds of thousands of objects in less.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is published: a snapshot and its number.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Grows with each snapshot.
    pub version: Version,
    /// Everything that the proxy is to serve.
    pub snapshot: Arc<Snapshot>,
}

/// Serves one proxy that has connected, until it is gone or `snapshots` ends. What it says is in force goes to `status`.
///
/// Call it when a snapshot is known to be complete: the proxy stops to serve what is not in it.
///
/// # Errors
///
/// The proxy is gone, speaks something else, or does not answer.
pub async fn publish(
    stream: impl AsyncRead + AsyncWrite,
    mut snapshots: watch::Receiver<Published>,
    status: &watch::Sender<Option<Status>>,
) -> Result<(), LinkError> {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let mut writer = BufWriter::new(writer);
    timeout(PATIENCE, negotiate(&mut reader, &mut writer)).await.map_err(|_| LinkError::NoStatus)??;
    // Reading is a task of its own, since a frame must not be given up half-way.
    let (sender, mut reports) = mpsc::channel(1);
    let read_reports = async {
        loop {
            match read(&mut reader).await? {
                FromProxy::Status(status) => sender.send(status).await.map_err(|_| LinkError::OutOfTurn)?,
                FromProxy::Hello { .. } => return Err(LinkError::OutOfTurn),
            }
        }
    };
    tokio::select! {
        result = read_reports => result,
        result = send_updates(&mut writer, &mut snapshots, &mut reports, status) => result,
    }
}

async fn negotiate(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), LinkError> {
    let FromProxy::Hello { oldest, newest } = read(reader).await? else {
        return Err(LinkError::OutOfTurn);
    };
    let protocol = newest.min(*SPOKEN.end());
    if protocol < oldest.max(*SPOKEN.start()) {
        return Err(LinkError::NoCommonVersion { oldest, newest });
    }
    write(writer, &ToProxy::Hello { protocol }).await?;
    Ok(writer.flush().await?)
}

async fn send_updates(
    writer: &mut (impl AsyncWrite + Unpin),
    snapshots: &mut watch::Receiver<Published>,
    reports: &mut mpsc::Receiver<Status>,
    status: &watch::Sender<Option<Status>>,
) -> Result<(), LinkError> {
    let mut sent: Option<Published> = None;
    loop {
        let next = snapshots.borrow_and_update().clone();
        let update = match &sent {
            Some(sent) => sent.snapshot.difference(&next.snapshot),
            None => Snapshot::default().difference(&next.snapshot),
        };
        let in_force = async {
            send(writer, next.version, sent.is_none(), update).await?;
            while let Some(report) = reports.recv().await {
                let version = report.version;
                status.send_replace(Some(report));
                if version == next.version {
                    return Ok(());
                }
            }
            Err(LinkError::OutOfTurn)
        };
        timeout(PATIENCE, in_force).await.map_err(|_| LinkError::NoStatus)??;
        sent = Some(next);
        loop {
            tokio::select! {
                changed = snapshots.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                Some(report) = reports.recv() => { status.send_replace(Some(report)); }
            }
        }
    }
}

async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    version: Version,
    complete: bool,
    update: Update,
) -> Result<(), LinkError> {
    write(writer, &ToProxy::Begin { version, complete }).await?;
    for key in update.remove {
        write(writer, &ToProxy::Remove(key)).await?;
    }
    for object in update.set {
        write(writer, &ToProxy::Set(object)).await?;
    }
    write(writer, &ToProxy::Commit).await?;
    Ok(writer.flush().await?)
}
