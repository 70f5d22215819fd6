// SPDX-License-Identifier: Apache-2.0
//! Messages of `sock_diag(7)`: headers in the host's byte order, addresses and ports in the network's
//! (`linux/inet_diag.h`, `linux/sock_diag.h`).

use abi::Addr;
use abi::flow::proto::TCP;
use abi::lb::Connected;

/// `SOCK_DIAG_BY_FAMILY`.
const LIST: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `nlmsghdr`.
const HEADER: usize = 16;
/// In `inet_diag_msg`, where the `inet_diag_sockid` is.
const ID: usize = 4;
const ID_LEN: usize = 48;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Found {
    family: u8,
    /// Its ends, its device and its cookie.
    id: [u8; ID_LEN],
}

impl Found {
    fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { family: *body.first()?, id: *body.get(ID..)?.first_chunk()? })
    }

    /// The number by which programs know it.
    pub(super) fn cookie(&self) -> u64 {
        let half = |at: usize| self.id.get(at..)?.first_chunk().map(|half| u64::from(u32::from_ne_bytes(*half)));
        half(40).zip(half(44)).map_or(0, |(low, high)| high << 32 | low)
    }

    pub(super) fn is_connected_to(&self, memory: &Connected) -> bool {
        self.peer() == Some((memory.backend, memory.backend_port))
    }

    /// Address and port (in network order) that it is connected to.
    fn peer(&self) -> Option<(Addr, u16)> {
        let port = u16::from_ne_bytes(*self.id.get(2..)?.first_chunk()?);
        let address = self.id.get(20..)?;
        let address = match i32::from(self.family) {
            libc::AF_INET => Addr::from_v4_be(u32::from_ne_bytes(*address.first_chunk()?)),
            _ => Addr::from_v6(*address.first_chunk()?),
        };
        Some((address, port))
    }
}

/// What the kernel says to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Found(Found),
    /// No more: 0, or minus an error.
    End(i32),
}

/// Asks for the connected sockets of a family and protocol.
pub(super) fn list(family: i32, protocol: u8) -> Vec<u8> {
    // Of a stream also the states in which its program may still wait for it: `TCP_SYN_SENT` and `TCP_CLOSE_WAIT`.
    let states: u32 = if protocol == TCP { 1 << 1 | 1 << 2 | 1 << 8 } else { 1 << 1 };
    message(LIST, DUMP, &request(u8::try_from(family).unwrap_or_default(), protocol, states, &[0; ID_LEN]))
}

/// Asks for the end of a socket's connection.
pub(super) fn destroy(protocol: u8, socket: &Found) -> Vec<u8> {
    message(DESTROY, ACK, &request(socket.family, protocol, u32::MAX, &socket.id))
}

/// All that was read at once.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((kind, body, rest)) = split(bytes) {
        match kind {
            LIST => answers.extend(Found::parse(body).map(Answer::Found)),
            ERROR | DONE => answers.push(Answer::End(body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)))),
            _ => {}
        }
        bytes = rest;
    }
    answers
}

/// The first message: its type, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..length)?, rest))
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// `inet_diag_req_v2`.
fn request(family: u8, protocol: u8, states: u32, id: &[u8; ID_LEN]) -> Vec<u8> {
    [&[family, protocol, 0, 0], states.to_ne_bytes().as_slice(), id].concat()
}
