// SPDX-License-Identifier: Apache-2.0
//! Traffic control by netlink, for kernels without tcx: the clsact queueing discipline and its filters.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use crate::bpf::Direction;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCLUSIVE: u16 = 0x200;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const DIRECT_ACTION: u32 = 1;

/// `TC_H_CLSACT`, also the parent of everything below.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Our filter in each direction: handle 1 at priority 1, for all protocols.
const HANDLE: u32 = 1;
const INFO: u32 = (1 << 16) | (libc::ETH_P_ALL as u16).to_be() as u32;

/// Makes the clsact discipline unless it is there.
pub(crate) fn add_clsact(ifindex: u32) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWQDISC, ACK | CREATE | EXCLUSIVE, ifindex, [CLSACT_HANDLE, CLSACT, 0]);
    message.attribute(TCA_KIND, b"clsact\0");
    match message.send() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        answer => answer,
    }
}

/// Makes our filter, or replaces its program.
pub(crate) fn replace_filter(ifindex: u32, direction: Direction, program: RawFd, name: &str) -> io::Result<()> {
    let mut options = Vec::new();
    attribute(&mut options, TCA_BPF_FD, &program.to_ne_bytes());
    attribute(&mut options, TCA_BPF_NAME, &[name.as_bytes(), &[0]].concat());
    attribute(&mut options, TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes());
    let mut message = Message::new(RTM_NEWTFILTER, ACK | CREATE, ifindex, [HANDLE, parent(direction), INFO]);
    message.attribute(TCA_KIND, b"bpf\0");
    message.attribute(TCA_OPTIONS, &options);
    message.send()
}

/// Removes our filter. It is no error when it, or the whole interface, has gone.
pub(crate) fn remove_filter(ifindex: u32, direction: Direction) -> io::Result<()> {
    let mut message = Message::new(RTM_DELTFILTER, ACK, ifindex, [HANDLE, parent(direction), INFO]);
    message.attribute(TCA_KIND, b"bpf\0");
    unless_gone(message.send())
}

/// Removes the clsact discipline if it has no filters any more, ours or somebody else's.
pub(crate) fn remove_empty_clsact(ifindex: u32) -> io::Result<()> {
    for direction in [Direction::Ingress, Direction::Egress] {
        let all = Message::new(RTM_GETTFILTER, DUMP, ifindex, [0, parent(direction), 0]);
        if !unless_gone(all.lists_nothing())? {
            return Ok(());
        }
    }
    let mut message = Message::new(RTM_DELQDISC, ACK, ifindex, [CLSACT_HANDLE, CLSACT, 0]);
    message.attribute(TCA_KIND, b"clsact\0");
    unless_gone(message.send())
}

/// It is no error when what an answer is about, or the whole interface, is not there.
fn unless_gone<T: Default>(answer: io::Result<T>) -> io::Result<T> {
    match answer {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => {
            Ok(T::default())
        }
        answer => answer,
    }
}

const fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

fn attribute(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    buffer.extend(len.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// A request: `struct nlmsghdr`, `struct tcmsg`, attributes.
struct Message(Vec<u8>);

impl Message {
    /// With handle, parent and info of `struct tcmsg`.
    fn new(kind: u16, flags: u16, ifindex: u32, tcm: [u32; 3]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([0; 4]);
        bytes.extend(ifindex.to_ne_bytes());
        tcm.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        attribute(&mut self.0, kind, value);
    }

    /// Sends it and waits for the kernel's acknowledgement.
    fn send(self) -> io::Result<()> {
        self.ask().map(drop)
    }

    /// Asks for a list and says whether nothing is in it.
    fn lists_nothing(self) -> io::Result<bool> {
        Ok(self.ask()? == NLMSG_DONE)
    }

    /// Sends it; the answer is the kind of the kernel's first message, an acknowledgement or what a list begins with.
    fn ask(mut self) -> io::Result<u16> {
        let len = u32::try_from(self.0.len()).unwrap_or_default().to_ne_bytes();
        self.0.iter_mut().zip(len).for_each(|(to, from)| *to = from);
        let socket: OwnedFd =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        sendto(socket.as_raw_fd(), &self.0, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let read = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let word = |at: usize| answer.get(at..at + 4)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        let kind = word(4).map(|word| word.cast_unsigned() as u16);
        match (kind, word(16)) {
            (Some(kind @ (RTM_NEWTFILTER | NLMSG_DONE)), _) if read >= 16 => Ok(kind),
            (Some(NLMSG_ERROR), Some(0)) if read >= 20 => Ok(NLMSG_ERROR),
            (Some(NLMSG_ERROR), Some(error)) if read >= 20 => Err(io::Error::from_raw_os_error(-error)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
