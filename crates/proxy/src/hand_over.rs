// SPDX-License-Identifier: Apache-2.0
//! Listening sockets pass from a process to the next, so that none is ever closed at a restart or upgrade.
//!
//! The next process connects and gets a message per socket, each with its descriptor, and an empty one. It opens what it serves, says
//! [`READY`], and from then on takes the connections; the one before lets those end that it has. If the next one ends before it is ready,
//! nothing has changed.

use crate::socket::Sockets;
use l7::{Place, passing};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

const READY: &[u8] = b"ready";
/// How long either side waits for a message of the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the next process may take until it serves.
const START: Duration = Duration::from_secs(120);

/// The process before and its sockets.
pub(crate) type Inheritance = (Predecessor, Vec<(Place, OwnedFd)>);

/// The process before, which goes on until it is told that this one is ready.
#[derive(Debug)]
pub(crate) struct Predecessor(Socket);

/// Takes the sockets of the process before; nothing if there is none.
///
/// # Errors
///
/// It is there but does not hand over.
pub(crate) fn take(path: &Path) -> io::Result<Option<Inheritance>> {
    let socket = match passing::connect(path) {
        Ok(socket) => socket,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    socket.set_read_timeout(Some(PATIENCE))?;
    let taken = passing::receive_all(&socket)?;
    Ok(Some((Predecessor(socket), taken)))
}

impl Predecessor {
    /// This process serves.
    pub(crate) fn ready(mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }
}

/// Where the next process asks.
#[derive(Debug)]
pub(crate) struct HandOver(Socket);

impl HandOver {
    /// Opens the socket in place of that of the process before.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(passing::listen(path, 1)?))
    }

    /// Waits, on a thread of its own, until another process has taken the sockets and serves.
    pub(crate) fn wait(&self, sockets: &Sockets) -> io::Result<()> {
        loop {
            let (next, _) = self.0.accept()?;
            match hand_over(next, sockets) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "another process has asked for the sockets but does not serve"),
            }
        }
    }
}

fn hand_over(mut next: Socket, sockets: &Sockets) -> io::Result<()> {
    next.set_write_timeout(Some(PATIENCE))?;
    next.set_read_timeout(Some(START))?;
    passing::send_all(&next, &sockets.duplicates()?)?;
    let mut answer = [0; READY.len()];
    let length = next.read(&mut answer)?;
    if answer.get(..length) == Some(READY) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
