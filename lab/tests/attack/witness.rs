// SPDX-License-Identifier: Apache-2.0
//! Who sees what arrives: on the raw device of pods and of the stranger, whatever the protocol, and on a socket of nodes, where raw devices see what is dropped behind.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use lab::wire::Wire;

use crate::book::number;
use crate::scene::{HOST_PORT, Scene, TICK};

/// How often which shot arrived where.
pub(crate) type Sightings = BTreeMap<(u32, &'static str), u32>;

type Seen = BTreeMap<u32, u32>;

/// All who look.
#[derive(Debug)]
pub(crate) struct Witnesses {
    stop: Arc<AtomicBool>,
    all: Vec<(&'static str, JoinHandle<Seen>)>,
}

impl Witnesses {
    pub(crate) fn begin(scene: &Scene) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = Vec::new();
        for party in [&scene.near, &scene.far, &scene.friend, &scene.stranger] {
            let (wire, done) = (Wire::listening(&party.netns, "eth0")?, stop.clone());
            all.push((party.name, thread::spawn(move || on_wire(&wire, &done))));
        }
        for node in &scene.nodes {
            let socket = node.netns.datagrams((std::net::Ipv6Addr::UNSPECIFIED, HOST_PORT).into())?;
            socket.set_read_timeout(Some(TICK))?;
            let done = stop.clone();
            all.push((node.name, thread::spawn(move || on_socket(&socket, &done))));
        }
        Ok(Self { stop, all })
    }

    pub(crate) fn finish(self) -> Result<Sightings> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sightings = Sightings::new();
        for (place, thread) in self.all {
            let seen = thread.join().map_err(|_| anyhow!("a witness ended"))?;
            sightings.extend(seen.into_iter().map(|(number, count)| ((number, place), count)));
        }
        Ok(sightings)
    }
}

fn on_wire(wire: &Wire, stop: &AtomicBool) -> Seen {
    let (mut seen, mut room) = (Seen::new(), vec![0; 65_536]);
    while !stop.load(Ordering::Relaxed) {
        if let Some(number) = wire.receive(&mut room).and_then(number) {
            *seen.entry(number).or_default() += 1;
        }
    }
    seen
}

fn on_socket(socket: &UdpSocket, stop: &AtomicBool) -> Seen {
    let (mut seen, mut room) = (Seen::new(), [0; 2048]);
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = socket.recv_from(&mut room) else { continue };
        if let Some(number) = number(&room[..length]) {
            *seen.entry(number).or_default() += 1;
        }
    }
    seen
}
