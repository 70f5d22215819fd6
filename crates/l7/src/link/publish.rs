// SPDX-License-Identifier: Apache-2.0
//! The agent's end: the newest snapshot goes to the proxy, and its status comes back.

use super::frame::{LinkError, read, write};
use super::{FromProxy, SPOKEN, Status, ToProxy};
use crate::{Snapshot, Update, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf};
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

/// What is known of a proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What it has of what it was given; nothing before it has said so.
    pub status: Option<Status>,
    /// The snapshot that it says so of.
    pub snapshot: Arc<Snapshot>,
    /// It is about to end, and takes connections for a moment more.
    pub leaving: bool,
}

/// A proxy that has connected.
#[derive(Debug)]
pub struct Link<S> {
    reader: BufReader<ReadHalf<S>>,
    writer: BufWriter<WriteHalf<S>>,
    pod: String,
}

/// Greets a proxy, from the agent.
///
/// # Errors
///
/// The proxy is gone, speaks something else, or does not answer.
pub async fn accept<S: AsyncRead + AsyncWrite>(stream: S) -> Result<Link<S>, LinkError> {
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (BufReader::new(reader), BufWriter::new(writer));
    let greeting = timeout(PATIENCE, negotiate(&mut reader, &mut writer));
    let pod = greeting.await.map_err(|_| LinkError::NoStatus)??;
    Ok(Link { reader, writer, pod })
}

impl<S: AsyncRead + AsyncWrite> Link<S> {
    /// The pod that the proxy says it is in.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Serves the proxy until it is gone or `snapshots` ends. What it says goes to `state`.
    ///
    /// Call it when a snapshot is known to be complete: the proxy stops to serve what is not in it.
    ///
    /// # Errors
    ///
    /// The proxy is gone, or does not answer.
    pub async fn publish(
        self,
        mut snapshots: watch::Receiver<Published>,
        state: &watch::Sender<State>,
    ) -> Result<(), LinkError> {
        let Self { mut reader, mut writer, .. } = self;
        // Reading is a task of its own, since a frame must not be given up half-way.
        let (sender, mut reports) = mpsc::channel(1);
        let read_reports = async {
            loop {
                match read(&mut reader).await? {
                    FromProxy::Status(status) => sender.send(status).await.map_err(|_| LinkError::OutOfTurn)?,
                    FromProxy::Leaving => state.send_modify(|state| state.leaving = true),
                    FromProxy::Hello { .. } => return Err(LinkError::OutOfTurn),
                }
            }
        };
        tokio::select! {
            result = read_reports => result,
            result = send_updates(&mut writer, &mut snapshots, &mut reports, state) => result,
        }
    }
}

async fn negotiate(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<String, LinkError> {
    let FromProxy::Hello { oldest, newest, pod } = read(reader).await? else {
        return Err(LinkError::OutOfTurn);
    };
    let protocol = newest.min(*SPOKEN.end());
    if protocol < oldest.max(*SPOKEN.start()) {
        return Err(LinkError::NoCommonVersion { oldest, newest });
    }
    write(writer, &ToProxy::Hello { protocol }).await?;
    writer.flush().await?;
    Ok(pod)
}

async fn send_updates(
    writer: &mut (impl AsyncWrite + Unpin),
    snapshots: &mut watch::Receiver<Published>,
    reports: &mut mpsc::Receiver<Status>,
    state: &watch::Sender<State>,
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
                let snapshot = if version == next.version { &next } else { sent.as_ref().unwrap_or(&next) };
                note(state, report, &snapshot.snapshot);
                if version == next.version {
                    return Ok(());
                }
            }
            Err(LinkError::OutOfTurn)
        };
        timeout(PATIENCE, in_force).await.map_err(|_| LinkError::NoStatus)??;
        let snapshot = Arc::clone(&next.snapshot);
        sent = Some(next);
        loop {
            tokio::select! {
                changed = snapshots.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                Some(report) = reports.recv() => note(state, report, &snapshot),
            }
        }
    }
}

fn note(state: &watch::Sender<State>, report: Status, snapshot: &Arc<Snapshot>) {
    state.send_modify(|state| {
        state.status = Some(report);
        state.snapshot = Arc::clone(snapshot);
    });
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
