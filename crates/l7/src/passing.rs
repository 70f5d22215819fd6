// SPDX-License-Identifier: Apache-2.0
//! Messages over a Unix socket that keeps them apart: a line of JSON each, with a descriptor if it has one.

use crate::Place;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of the longest message.
const LONGEST: usize = 1024;

/// Opens a socket for such messages, for its owner alone and in place of that of a process before. `waiting`: who may wait to be taken.
///
/// # Errors
///
/// The folder cannot be written.
pub fn listen(path: &Path, waiting: i32) -> io::Result<Socket> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    socket.listen(waiting)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(socket)
}

/// Connects to one.
///
/// # Errors
///
/// Nobody listens there.
pub fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Sends a message.
///
/// # Errors
///
/// The other side is gone or does not read.
pub fn send(socket: &impl AsFd, message: &impl Serialize, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptor {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    let message = serde_json::to_vec(message)?;
    sendmsg(socket, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message.
///
/// # Errors
///
/// The other side is gone, is silent for too long, or sends something else.
pub fn receive<T: DeserializeOwned>(socket: &impl AsFd) -> io::Result<(T, Option<OwnedFd>)> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let message = bytes.get(..received.bytes).unwrap_or_default();
    if message.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = serde_json::from_slice(message)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((message, descriptors.flatten().next()))
}

/// Sends sockets, and that these are all.
///
/// # Errors
///
/// The other side is gone or does not read.
pub fn send_all<'a, S: AsFd + 'a>(
    socket: &impl AsFd,
    all: impl IntoIterator<Item = (&'a Place, &'a S)>,
) -> io::Result<()> {
    for (place, one) in all {
        send(socket, &Some(place), Some(one.as_fd()))?;
    }
    send(socket, &None::<Place>, None)
}

/// What [`send_all`] sends.
///
/// # Errors
///
/// The other side is gone, is silent for too long, or sends something else.
pub fn receive_all(socket: &impl AsFd) -> io::Result<Vec<(Place, OwnedFd)>> {
    let mut all = Vec::new();
    while let (Some(place), descriptor) = receive(socket)? {
        all.push((place, descriptor.ok_or(io::ErrorKind::InvalidData)?));
    }
    Ok(all)
}
