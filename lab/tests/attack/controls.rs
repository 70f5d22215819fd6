// SPDX-License-Identifier: Apache-2.0
//! What is allowed and goes on all the time: the friend talks to both victims, over both families, in small and large datagrams and on TCP connections.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::clock::breathe;
use lab::probe::eventually;

use crate::scene::{FAMILIES, FRIENDS_PORT, PORT, Party, Scene, TICK};

/// How long what is allowed may take: an agent that is away delays nothing, a busy machine does.
const PATIENCE: Duration = Duration::from_secs(20);
/// Does not fit into one packet.
const LARGE: usize = 3000;

/// The talks of the friend.
#[derive(Debug)]
pub(crate) struct Controls {
    stop: Arc<AtomicBool>,
    answers: Vec<(String, Arc<AtomicU32>)>,
}

impl Controls {
    pub(crate) fn begin(scene: &Scene) -> Result<Self> {
        let mut controls = Self { stop: Arc::default(), answers: Vec::new() };
        for family in FAMILIES {
            let from = SocketAddr::new(scene.friend.addresses[family], FRIENDS_PORT);
            let socket = Arc::new(scene.friend.netns.datagrams(from)?);
            socket.set_read_timeout(Some(TICK))?;
            let mut counters = Vec::new();
            for victim in scene.victims() {
                let to = victim.addresses[family];
                controls.echo(victim.netns.datagrams(SocketAddr::new(to, PORT))?)?;
                for (size, large) in [("small", false), ("large", true)] {
                    let counter = controls.counter(format!("{size} datagrams to {}, {to}", victim.name));
                    counters.push((to, large, counter));
                }
                controls.talk(&scene.friend, victim, family)?;
            }
            controls.ask(socket, counters);
        }
        Ok(controls)
    }

    /// Waits until all have had a few answers more: everything allowed has passed in the meantime.
    pub(crate) fn go_on(&self) -> Result<()> {
        let before: Vec<u32> = self.answers.iter().map(|(_, count)| count.load(Ordering::Relaxed)).collect();
        for ((what, count), before) in self.answers.iter().zip(before) {
            eventually(PATIENCE, &format!("what is allowed: {what}"), || {
                let more = count.load(Ordering::Relaxed) - before;
                ensure!(more >= 5, "{more} answers more");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn counter(&mut self, what: String) -> Arc<AtomicU32> {
        let counter = Arc::<AtomicU32>::default();
        self.answers.push((what, counter.clone()));
        counter
    }

    /// A victim that sends back what the friend sends, and nothing else.
    fn echo(&self, socket: UdpSocket) -> Result<()> {
        socket.set_read_timeout(Some(TICK))?;
        let stop = self.stop.clone();
        thread::spawn(move || {
            let mut room = [0; LARGE];
            while !stop.load(Ordering::Relaxed) {
                match socket.recv_from(&mut room) {
                    Ok((length, from)) if from.port() == FRIENDS_PORT => drop(socket.send_to(&room[..length], from)),
                    _ => {}
                }
            }
        });
        Ok(())
    }

    /// The friend's datagrams to both victims, and what comes back.
    fn ask(&self, socket: Arc<UdpSocket>, counters: Vec<(IpAddr, bool, Arc<AtomicU32>)>) {
        let (stop, out) = (self.stop.clone(), socket.clone());
        let targets: Vec<(IpAddr, bool)> = counters.iter().map(|(to, large, _)| (*to, *large)).collect();
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (to, large) in &targets {
                    let _ = out.send_to(&[7; LARGE][..if *large { LARGE } else { 8 }], (*to, PORT));
                }
                breathe(TICK);
            }
        });
        let stop = self.stop.clone();
        thread::spawn(move || {
            let mut room = [0; LARGE];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut room) else { continue };
                let of_it = |(to, large, _): &&(IpAddr, bool, _)| *to == from.ip() && *large == (length == LARGE);
                if let Some((_, _, counter)) = counters.iter().find(of_it) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    /// Questions and answers on a connection.
    fn talk(&mut self, friend: &Party, victim: &Party, family: usize) -> Result<()> {
        let to = SocketAddr::new(victim.addresses[family], PORT);
        let listener = victim.netns.run(|| Ok(std::net::TcpListener::bind(to)?))?;
        let stream = friend.netns.connect(to)?;
        let (peer, _) = listener.accept()?;
        let (counter, stop) = (self.counter(format!("answers of {}, {to}", victim.name)), self.stop.clone());
        thread::spawn(move || answer(peer));
        thread::spawn(move || question(stream, &counter, &stop));
        Ok(())
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answer(mut peer: TcpStream) {
    let mut room = [0; 4];
    while peer.read_exact(&mut room).is_ok() && peer.write_all(&room).is_ok() {}
}

fn question(mut stream: TcpStream, counter: &AtomicU32, stop: &AtomicBool) {
    let (mut room, _) = ([0; 4], stream.set_read_timeout(Some(PATIENCE)));
    while !stop.load(Ordering::Relaxed) && stream.write_all(b"ask!").is_ok() && stream.read_exact(&mut room).is_ok() {
        counter.fetch_add(1, Ordering::Relaxed);
        breathe(TICK);
    }
}
