// SPDX-License-Identifier: Apache-2.0
//! A machine that asks by ARP who has an address, again and again, and everybody who answers.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, socket};

use crate::clock;
use crate::place::enter_netns;

pub(crate) type Mac = [u8; 6];

/// How often it asks.
pub(crate) const PACE: Duration = Duration::from_millis(10);
const BROADCAST: Mac = [0xff; 6];
const REQUEST: u8 = 1;

/// An answer that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) at: Instant,
    /// Where the address is said to be.
    pub(crate) mac: Mac,
}

/// The questions go on until this is dropped.
#[derive(Debug)]
pub(crate) struct Asking {
    coming: Receiver<Answer>,
    heard: Vec<Answer>,
}

/// Who asks, where, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) netns: PathBuf,
    pub(crate) device: &'static str,
    pub(crate) from: Ipv4Addr,
    pub(crate) address: Ipv4Addr,
}

impl Asking {
    pub(crate) fn start(question: Question) -> Result<Self> {
        let (sender, coming) = mpsc::channel();
        let (opened, is_open) = mpsc::channel();
        std::thread::spawn(move || match open(&question.netns, question.device) {
            Ok((socket, mac)) => {
                // Whoever started it may have given up.
                let _ = opened.send(Ok(()));
                ask(&socket, mac, &question, &sender)
            }
            Err(error) => opened.send(Err(error)).context("nobody waits"),
        });
        is_open.recv().context("the thread that asks ended")??;
        Ok(Self { coming, heard: Vec::new() })
    }

    /// The answers since then.
    pub(crate) fn since(&mut self, then: Instant) -> Vec<Answer> {
        self.heard.extend(self.coming.try_iter());
        self.heard.iter().copied().filter(|answer| answer.at >= then).collect()
    }

    /// Waits until one alone has answered for that long, and returns who.
    pub(crate) fn until_steady(&mut self, span: Duration, limit: Duration) -> Result<Mac> {
        clock::poll(limit, PACE, || {
            let now = clock::now();
            let answers = self.since(now.checked_sub(span).unwrap_or(now));
            let first = answers.first().context("nobody answers")?;
            ensure!(answers.iter().all(|answer| answer.mac == first.mac), "several answer");
            ensure!(now - first.at + 2 * PACE >= span, "it has not answered for long");
            let gap = answers.windows(2).filter_map(|pair| Some(pair.last()?.at - pair.first()?.at)).max();
            match gap {
                Some(gap) if gap < 10 * PACE => Ok(first.mac),
                _ => bail!("it answers now and then"),
            }
        })
    }
}

/// A socket that sends and receives frames on a device, whose hardware address comes with it.
fn open(netns: &Path, device: &str) -> Result<(UdpSocket, Mac)> {
    enter_netns(netns)?;
    let mut all = getifaddrs().context("cannot list the devices")?.filter(|one| one.interface_name == device);
    let address = all.find_map(|one| one.address?.as_link_addr().copied());
    let address: LinkAddr = address.with_context(|| format!("there is no device {device}"))?;
    let mac = address.addr().with_context(|| format!("{device} has no hardware address"))?;
    let socket: OwnedFd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("no raw socket")?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot bind to {device}"))?;
    // This type can send on any socket and set its timeouts.
    Ok((socket.into(), mac))
}

fn ask(socket: &UdpSocket, mac: Mac, question: &Question, answers: &Sender<Answer>) -> Result<()> {
    let address = question.address.octets();
    let request = frames::arp(REQUEST, (mac, question.from.octets()), ([0; 6], address), BROADCAST);
    let (mut room, mut next) = ([0; 2048], clock::now());
    loop {
        let now = clock::now();
        if now >= next {
            socket.send(&request).context("cannot ask")?;
            next += PACE;
        }
        // No time at all would be for ever.
        socket.set_read_timeout(Some(next.saturating_duration_since(now).max(PACE / 10)))?;
        let Ok(length) = socket.recv(&mut room) else { continue };
        if let Some(mac) = room.get(..length).and_then(|frame| answered(frame, address)) {
            answers.send(Answer { at: clock::now(), mac }).context("nobody listens any more")?;
        }
    }
}

/// The hardware address that an ARP reply names for an address.
fn answered(frame: &[u8], address: [u8; 4]) -> Option<Mac> {
    const REPLY: [u8; 10] = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2];
    let is_reply = frame.get(12..22)? == REPLY && frame.get(28..32)? == address;
    is_reply.then(|| frame.get(22..28)?.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_reply_for_the_address() {
        let (address, mac) = ([192, 0, 2, 1], [2, 0, 0, 0, 0, 9]);
        let frame = |operation, address| frames::arp(operation, (mac, address), ([2; 6], [192, 0, 2, 7]), [2; 6]);
        assert_eq!(answered(&frame(2, address), address), Some(mac));
        assert_eq!(answered(&frame(1, address), address), None);
        assert_eq!(answered(&frame(2, [192, 0, 2, 2]), address), None);
        assert_eq!(answered(&frame(2, address)[..30], address), None);
    }
}
