// SPDX-License-Identifier: Apache-2.0
//! A victim asks the stranger, under its node's address. The stranger answers, and sends more to where the answer goes: from another port, from another address, and
//! by other protocols.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use frames::{Mac, Packet, SYN, Transport};
use lab::probe::eventually;
use lab::wire::Wire;

use crate::book::{Book, Gun, Mark};
use crate::scene::{FAMILIES, Party, Scene, TICK};

pub(crate) const NAME: &str = "12 answers to a masqueraded flow from elsewhere";
const PORT: u16 = 7000;

/// What is sent to the port from which the question seems to come.
type To = Box<dyn Fn(u16) -> Transport + Send>;

/// What is sent besides the answer: from where, and with what.
type Trick = (IpAddr, To, Mark);

/// Questions of both victims, and their answers.
#[derive(Debug)]
pub(crate) struct Questions {
    stop: Arc<AtomicBool>,
    answers: Vec<(String, Arc<AtomicU32>)>,
}

impl Questions {
    pub(crate) fn begin(scene: &Scene, book: &mut Book) -> Result<Self> {
        let mut all = Self { stop: Arc::default(), answers: Vec::new() };
        book.way(NAME);
        for (node, victim) in scene.nodes.iter().zip(scene.victims()) {
            for family in FAMILIES {
                let port = PORT + u16::from(victim.name == scene.far.name);
                let at = SocketAddr::new(scene.stranger.addresses[family], port);
                let tricks = tricks(scene, book, victim, at);
                all.serve(scene, at, tricks, node)?;
                all.ask(victim, at)?;
            }
        }
        Ok(all)
    }

    /// Waits until every victim has had a few answers more.
    pub(crate) fn go_on(&self) -> Result<()> {
        for (what, count) in &self.answers {
            let before = count.load(Ordering::Relaxed);
            eventually(std::time::Duration::from_secs(20), &format!("what is allowed: {what}"), || {
                ensure!(count.load(Ordering::Relaxed) >= before + 5, "no answers");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn ask(&mut self, victim: &Party, at: SocketAddr) -> Result<()> {
        let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = victim.netns.datagrams(any.parse()?)?;
        socket.set_read_timeout(Some(TICK))?;
        let count = Arc::<AtomicU32>::default();
        self.answers.push((format!("the stranger's answers to {}, {at}", victim.name), count.clone()));
        let stop = self.stop.clone();
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send_to(b"question", at);
                if socket.recv_from(&mut [0; 64]).is_ok_and(|(_, from)| from == at) {
                    count.fetch_add(1, Ordering::Relaxed);
                    lab::clock::breathe(TICK);
                }
            }
        });
        Ok(())
    }

    fn serve(&self, scene: &Scene, at: SocketAddr, tricks: Vec<Trick>, node: &Party) -> Result<()> {
        let socket: UdpSocket = scene.stranger.netns.datagrams(at)?;
        socket.set_read_timeout(Some(TICK))?;
        let wire = Wire::sending(&scene.stranger.netns, "eth0")?;
        let (stop, from, to): (_, Mac, Mac) = (self.stop.clone(), scene.stranger.mac, node.mac);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, asker)) = socket.recv_from(&mut [0; 64]) else { continue };
                for (src, transport, mark) in &tricks {
                    let packet = Packet::new(*src, asker.ip(), transport(asker.port())).payload(mark);
                    let _ = wire.send(&packet.clone().macs(from, to).bytes());
                }
                let _ = socket.send_to(b"answer", asker);
            }
        });
        Ok(())
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn tricks(scene: &Scene, book: &mut Book, victim: &Party, at: SocketAddr) -> Vec<Trick> {
    let family = usize::from(at.is_ipv6());
    let (own, second, world, port) = (at.ip(), scene.second[family], scene.world[family], at.port());
    let (request, reply) = if at.is_ipv4() { (8, 0) } else { (128, 129) };
    let all: [(&str, IpAddr, To); 8] = [
        ("UDP from another port", own, Box::new(|to| Transport::Udp { sport: 7777, dport: to })),
        ("UDP from another address", second, Box::new(move |to| Transport::Udp { sport: port, dport: to })),
        ("UDP from the world", world, Box::new(move |to| Transport::Udp { sport: port, dport: to })),
        ("UDP from another address and port", second, Box::new(|to| Transport::Udp { sport: 7777, dport: to })),
        ("UDP to the next port", own, Box::new(|to| Transport::Udp { sport: 7777, dport: to.wrapping_add(1) })),
        ("TCP", own, Box::new(move |to| Transport::Tcp { sport: port, dport: to, flags: SYN })),
        ("an echo's answer", own, Box::new(move |to| Transport::Icmp { kind: reply, code: 0, rest: echo(to) })),
        ("an echo request", own, Box::new(move |to| Transport::Icmp { kind: request, code: 0, rest: echo(to) })),
    ];
    let all = all.into_iter();
    all.map(|(what, src, to)| {
        let what = format!("{what}, {src}, to the port of a flow of {}", victim.name);
        (src, to, book.mark(Gun::Stranger, what))
    })
    .collect()
}

fn echo(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [high, low, 0, 1]
}
