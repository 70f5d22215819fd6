// SPDX-License-Identifier: Apache-2.0
//! Hooks in memory: what would be attached is remembered by the name of its pin.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Result;
use crate::bpf::{Direction, LinkPin, Migration, Program};

/// Hooks in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Hooks(Arc<Mutex<BTreeMap<String, Option<u32>>>>);

impl Hooks {
    /// What is attached: names of pins, with the index of the interface if it is on one.
    #[must_use]
    pub fn attached(&self) -> BTreeMap<String, Option<u32>> {
        self.0.lock().clone()
    }
}

impl crate::Hooks for Hooks {
    fn attach_tc(&self, _: Program, ifindex: u32, _: Direction, pin: &str) -> Result<()> {
        self.0.lock().insert(pin.to_owned(), Some(ifindex));
        Ok(())
    }

    fn attach_tc_at_once(&self, program: Program, ifindex: u32, direction: Direction, pin: &str) -> Result<bool> {
        self.attach_tc(program, ifindex, direction, pin).map(|()| true)
    }

    fn attach_cgroup(&self, _: Program, _: &Path, pin: &str) -> Result<()> {
        self.0.lock().insert(pin.to_owned(), None);
        Ok(())
    }

    fn detach(&self, pin: &str) -> Result<bool> {
        Ok(self.0.lock().remove(pin).is_some())
    }

    fn links(&self) -> Result<Vec<LinkPin>> {
        Ok(self.attached().into_iter().map(|(name, ifindex)| LinkPin { name, ifindex }).collect())
    }

    fn attach_mode(&self) -> &'static str {
        "tcx"
    }

    fn finish_migration(&self) -> Result<Migration> {
        Ok(Migration { flows: 0, finished: true })
    }

    fn untrack_udp(&self, _: Option<u16>) -> Result<()> {
        Ok(())
    }
}
