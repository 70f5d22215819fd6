// SPDX-License-Identifier: Apache-2.0
//! The node's own sockets: the agent, which is in that network and may bind any port of it, opens them, and the node's proxies, which are
//! neither, serve them. Listeners that want one say so ([`crate::Listener::node`]).
//!
//! ```text
//! proxy ── Held ──► agent     a socket that the proxy has, with its descriptor: an agent that starts takes it over
//!       ── Want ──►           a socket that it lacks
//!       ◄─ Opened ──          with its descriptor
//!       ◄─ Refused ──
//! ```
//!
//! All proxies share the sockets, so the next one begins before the one before ends, and what clients have opened waits for either.

use super::publish::Published;
use crate::{Listener, Place, passing};
use nix::sys::socket::{MsgFlags, recv};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Name of the socket, in the folder of the other.
pub const SOCKETS: &str = "sockets.sock";

/// For how long clients wait for a next proxy when there is none. Then they are refused rather than left alone.
const ALONE: Duration = Duration::from_secs(30);
/// After a proxy could not be taken: with no descriptor left the next one fails at once, too.
const BREATH: Duration = Duration::from_millis(100);
/// Proxies that wait to be taken.
const WAITING: i32 = 16;
/// How long a proxy waits for its agent.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ToAgent {
    Held(Place),
    Want(Place),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum FromAgent {
    Opened(Place),
    Refused(Place, String),
}

/// The agent's end.
#[derive(Debug)]
pub struct NodeSockets {
    /// Its sockets keep messages apart, which is nothing to whoever waits for them.
    listener: UnixListener,
    holder: Arc<Holder>,
}

impl NodeSockets {
    /// Waits for proxies at a path, from a runtime. They get what is wanted by the newest snapshot, and nothing else.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn open(path: &Path, snapshots: watch::Receiver<Published>) -> io::Result<Self> {
        let listener = passing::listen(path, WAITING)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(OwnedFd::from(listener).into())?;
        Ok(Self { listener, holder: Arc::new(Holder { snapshots, held: Mutex::default() }) })
    }

    /// Serves them until there are no more snapshots.
    pub async fn serve(self) {
        let Self { listener, holder } = self;
        let mut snapshots = holder.snapshots.clone();
        let mut proxies = JoinSet::new();
        let mut alone = Instant::now();
        loop {
            if !proxies.is_empty() {
                alone = Instant::now();
            }
            tokio::select! {
                taken = listener.accept() => match taken {
                    Ok((line, _)) => drop(proxies.spawn(serve(line, Arc::clone(&holder)))),
                    Err(_) => sleep(BREATH).await,
                },
                Some(_) = proxies.join_next() => {}
                changed = snapshots.changed() => match changed {
                    Ok(()) => holder.close_unwanted(),
                    Err(_) => return,
                },
                () = sleep_until(alone + ALONE), if proxies.is_empty() && holder.holds() => holder.held.lock().clear(),
            }
        }
    }
}

/// Serves a proxy until it is gone, or says what it may not.
async fn serve(line: UnixStream, holder: Arc<Holder>) {
    while let Ok((message, descriptor)) = line.async_io(Interest::READABLE, || passing::receive(&line)).await {
        let place = match (message, descriptor) {
            (ToAgent::Want(place), _) => place,
            (ToAgent::Held(place), Some(socket)) => {
                holder.adopt(place, socket);
                continue;
            }
            (ToAgent::Held(_), None) => return,
        };
        let got = holder.get(place);
        let answer =
            got.as_ref().map_or_else(|e| FromAgent::Refused(place, e.to_string()), |_| FromAgent::Opened(place));
        let socket = got.as_ref().ok().map(AsFd::as_fd);
        if line.async_io(Interest::WRITABLE, || passing::send(&line, &answer, socket)).await.is_err() {
            return;
        }
    }
}

/// The sockets.
#[derive(Debug)]
struct Holder {
    snapshots: watch::Receiver<Published>,
    held: Mutex<HashMap<Place, Socket>>,
}

impl Holder {
    fn wants(&self, place: &Place) -> bool {
        let published = self.snapshots.borrow();
        let mut wanted = published.snapshot.listeners().filter(|listener| listener.node);
        wanted.any(|listener: &Listener| Place::of(listener) == *place)
    }

    /// Another descriptor of the socket, which is opened if it is not.
    fn get(&self, place: Place) -> io::Result<Socket> {
        if !self.wants(&place) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no listener has this address on this node"));
        }
        match self.held.lock().entry(place) {
            Entry::Occupied(held) => held.get().try_clone(),
            Entry::Vacant(free) => free.insert(place.open()?).try_clone(),
        }
    }

    /// Takes a socket over that a proxy has of an agent before.
    fn adopt(&self, place: Place, socket: OwnedFd) {
        let socket = Socket::from(socket);
        if self.wants(&place) && place.has(&socket) {
            self.held.lock().entry(place).or_insert(socket);
        }
    }

    fn close_unwanted(&self) {
        self.held.lock().retain(|place, _| self.wants(place));
    }

    fn holds(&self) -> bool {
        !self.held.lock().is_empty()
    }
}

/// The proxy's end.
#[derive(Debug)]
pub struct NodeLine {
    path: PathBuf,
    line: Option<Socket>,
}

/// What became of each socket that was wanted.
pub type Answers = Vec<(Place, io::Result<OwnedFd>)>;

impl NodeLine {
    /// To the agent at that path, once it is needed.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, line: None }
    }

    /// Asks for sockets, and waits for them. An agent that has not been told of those that are held is.
    ///
    /// # Errors
    ///
    /// The agent is away or does not answer.
    pub fn ask<S: AsFd>(&mut self, held: &HashMap<Place, S>, wanted: &[Place]) -> io::Result<Answers> {
        let answers = self.line(held).and_then(|line| wanted.iter().map(|place| ask(line, *place)).collect());
        if answers.is_err() {
            self.line = None;
        }
        answers
    }

    fn line<S: AsFd>(&mut self, held: &HashMap<Place, S>) -> io::Result<&Socket> {
        let line = match self.line.take().filter(is_open) {
            Some(line) => line,
            None => {
                let line = passing::connect(&self.path)?;
                line.set_read_timeout(Some(PATIENCE))?;
                line.set_write_timeout(Some(PATIENCE))?;
                for (place, socket) in held {
                    passing::send(&line, &ToAgent::Held(*place), Some(socket.as_fd()))?;
                }
                line
            }
        };
        Ok(self.line.insert(line))
    }
}

/// Whether the agent is still there. It says nothing by itself.
fn is_open(line: &Socket) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(line.as_raw_fd(), &mut [0], flags) == Err(nix::errno::Errno::EAGAIN)
}

fn ask(line: &Socket, wanted: Place) -> io::Result<(Place, io::Result<OwnedFd>)> {
    passing::send(line, &ToAgent::Want(wanted), None)?;
    match passing::receive(line)? {
        (FromAgent::Opened(place), Some(socket)) if place == wanted => Ok((wanted, Ok(socket))),
        (FromAgent::Refused(place, reason), _) if place == wanted => Ok((wanted, Err(io::Error::other(reason)))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests;
