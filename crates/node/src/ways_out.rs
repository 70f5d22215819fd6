// SPDX-License-Identifier: Apache-2.0
//! The ways flows leave the node, and whose epochs to bump when they change: at once for a single change, periodically
//! for a burst.

use crate::fib::{Concerned, Fib};
use crate::inventory::is_inner;
use datapath::netlink::{Change, FibRoute, Link};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Minimum time between bumps.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct WaysOut {
    fib: Fib,
    /// Tunnel endpoints of nodes.
    nodes: BTreeSet<IpAddr>,
    /// Who has not been bumped yet. At start everyone: nobody knows what was missed.
    concerned: Concerned,
    /// The tables must be read.
    stale: bool,
    reported: Option<Instant>,
}

impl Default for WaysOut {
    fn default() -> Self {
        Self {
            fib: Fib::default(),
            nodes: BTreeSet::new(),
            concerned: Concerned::Everyone,
            stale: true,
            reported: None,
        }
    }
}

impl WaysOut {
    /// Handles a change reported by the kernel.
    pub(crate) fn note(&mut self, change: &Change) {
        match change {
            Change::Route(change) => {
                if let Some(destination) = self.fib.apply(change) {
                    self.concerned.add(&destination, &self.nodes);
                }
            }
            Change::Rules => {
                self.fib.forget_tables();
                self.concern_everyone();
            }
            Change::Lost => self.concern_everyone(),
            Change::Link(link) => {
                self.know(link);
                if !link.running {
                    self.fib.doubt(link.index);
                }
                self.stale |= !is_inner(&link.name);
            }
            Change::LinkGone(link) => {
                self.fib.device_gone(link.index);
                self.stale |= !is_inner(&link.name);
            }
            Change::AddressGone(address) => self.fib.doubt(address.ifindex),
            Change::Address(_) => {}
        }
    }

    fn concern_everyone(&mut self) {
        self.concerned = Concerned::Everyone;
        self.stale = true;
    }

    fn know(&mut self, link: &Link) {
        self.fib.set_inner(link.index, is_inner(&link.name));
    }

    /// Sets the devices and nodes.
    pub(crate) fn look(&mut self, links: &[Link], nodes: BTreeSet<IpAddr>) {
        links.iter().for_each(|link| self.know(link));
        self.nodes = nodes;
    }

    /// Whether the tables must be read, since the kernel does not report everything.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale || self.fib.is_in_doubt()
    }

    /// The tables have been read.
    pub(crate) fn read(&mut self, all: Vec<FibRoute>, tables: Option<BTreeSet<u32>>) {
        for destination in self.fib.read(all, tables) {
            self.concerned.add(&destination, &self.nodes);
        }
        self.stale = false;
    }

    /// Whose epochs to bump.
    pub(crate) const fn concerned(&self) -> &Concerned {
        &self.concerned
    }

    /// Whether to bump right now: it was a single change.
    pub(crate) fn is_urgent(&self) -> bool {
        self.concerned != Concerned::Nobody && self.reported.is_none_or(|reported| reported.elapsed() >= PAUSE)
    }

    /// Marks them as bumped.
    pub(crate) fn reported(&mut self) {
        self.concerned = Concerned::Nobody;
        self.reported = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests;
