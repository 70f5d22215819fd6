// SPDX-License-Identifier: Apache-2.0
//! Packets, for the programs and the model.

use abi::event::kind;
use abi::{Addr, DropReason};
use datapath::bpf::{self, Program, TestRun};

use super::super::dump::Dump;
use super::super::naive::{Expected, Hint};
use super::super::talk::{By, End, Message, Outcome, Part, Place, Proto, Slot, Talk, Way};
use super::super::wire;
use super::{Drive, mac};
use crate::packet::SYN;
use crate::world::families;

/// Drops, and what else is told.
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_TX: i32 = 3;

impl Drive<'_> {
    pub(super) fn flood(&mut self, slot: Slot, proto: Proto, flows: u16) -> Result<(), String> {
        let Some(pod) = self.model.pods[slot] else { return Ok(()) };
        for port in 20_000..20_000 + flows {
            let from = End { ip: pod.ip, port: Some(port) };
            let talk = Talk { from, to: End { ip: self.family.world, port: Some(4000) }, proto };
            let flags = if proto == Proto::Tcp { SYN } else { 0 };
            let place = Place::Pod(slot);
            self.say(Message { place, talk, flags, about: None, part: Part::Whole, tells: None, inside: None }, false)?;
        }
        Ok(())
    }

    /// A packet, for both. Looks at what is remembered of it, unless the packet shows all there is to know.
    pub(super) fn say(&mut self, message: Message, looks: bool) -> Result<(), String> {
        let frame = wire::frame(&message, families()[0].node, self.family.node2);
        let run = self.run(message.place, &frame)?;
        let events = self.world.events();
        let drop = events.iter().find(|event| event.kind == kind::DROP);
        let outcome = match (run.verdict, drop) {
            (SHOT, Some(event)) => Outcome::Dropped(DropReason::from_code(event.reason).unwrap()),
            (SHOT, None) => return Err(format!("{message:?} is dropped and nobody is told")),
            (-1, _) => Outcome::Ignored,
            (0, _) => Outcome::Left(wire::words(&run.packet)),
            _ => self.sent(&run.packet),
        };
        let dropped = drop.map(|event| {
            let end = |addr: Addr, port: u16| End { ip: addr.into(), port: Some(u16::from_be(port)) };
            Talk { from: end(event.src, event.sport), to: end(event.dst, event.dport), ..message.talk }
        });
        let sent = match outcome {
            Outcome::Sent(_, words, _) | Outcome::Left(words) => Some(self.model.meant_for(words)),
            Outcome::Dropped(_) | Outcome::Ignored => None,
        };
        let dump = looks.then(|| self.dump());
        let records = dump.as_ref().map(Dump::records).unwrap_or_default();
        let hint = Hint { dropped, sent, records: &records };
        let seen = Expected { outcome, told: events.len() };
        let expected =
            self.model.see(&message, hint).map_err(|complaint| format!("{message:?}: {complaint}, {seen:?}"))?;
        if seen != expected {
            return Err(format!("{message:?}\n  must be {expected:?}\n  but is {seen:?}"));
        }
        match dump {
            Some(dump) => self.compare(&dump).map_err(|difference| format!("{message:?}\n{difference}")),
            None => Ok(()),
        }
    }

    /// Runs the program that sees a packet there: before the stack first, where that is switched on.
    fn run(&mut self, place: Place, frame: &[u8]) -> Result<TestRun, String> {
        let eth0 = self.world.eth0;
        let (program, ifindex, arrived_by) = match place {
            Place::Pod(slot) => (Program::PodEgress, self.interfaces[slot], self.interfaces[slot]),
            Place::Stack { into, by } => (Program::PodIngress, self.interfaces[into], self.arrived_by(by)),
            Place::Tunnel { .. } | Place::Wire => (Program::NetdevIngress, eth0, eth0),
        };
        let datapath = &self.world.datapath;
        if program == Program::NetdevIngress && datapath.config().accelerate != 0 {
            let run = datapath.test_run(Program::NetdevXdp, frame, eth0, 1).unwrap();
            match run.verdict {
                XDP_DROP => return Ok(TestRun { verdict: SHOT, ..run }),
                XDP_TX => {
                    self.early += 1;
                    return Ok(TestRun { verdict: REDIRECT, ..run });
                }
                _ if run.packet != frame => return Err("it passes, and is another packet".to_owned()),
                _ => {}
            }
        }
        let place = bpf::Place { ifindex, arrived_by, ..bpf::Place::default() };
        Ok(self.world.datapath.test_run_at(program, frame, place, 1).unwrap())
    }

    fn arrived_by(&self, by: By) -> u32 {
        match by {
            By::Itself => 0,
            By::Wire => self.world.eth0,
            By::Tunnel => self.world.overlay,
            By::Pod(slot) => self.interfaces[slot],
        }
    }

    fn sent(&self, frame: &[u8]) -> Outcome {
        if let Some((node, vni, inner)) = wire::tunnelled(frame) {
            return Outcome::Sent(Way::Node(node), wire::words(inner), Some(vni));
        }
        let pod = (0..3).find(|slot| frame[..12] == [mac(0xa, *slot), mac(0xb, *slot)].concat());
        Outcome::Sent(pod.map_or(Way::Wire, Way::Pod), wire::words(frame), None)
    }
}
