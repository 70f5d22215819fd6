// SPDX-License-Identifier: Apache-2.0
//! Hooks in memory: what would be attached is remembered by the name of its pin.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bpf::{Direction, LinkPin, Migration, Program, XdpMode};
use crate::{Error, Result};

/// Hooks in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    attached: Arc<Mutex<BTreeMap<String, Option<u32>>>>,
    lacks_native_xdp: bool,
}

impl Hooks {
    /// Hooks of a machine whose drivers know no XDP.
    #[must_use]
    pub fn without_native_xdp() -> Self {
        Self { lacks_native_xdp: true, ..Self::default() }
    }

    /// What is attached: names of pins, with the index of the interface if it is on one.
    #[must_use]
    pub fn attached(&self) -> BTreeMap<String, Option<u32>> {
        self.attached.lock().clone()
    }
}

impl crate::Hooks for Hooks {
    fn attach_tc(&self, _: Program, ifindex: u32, _: Direction, pin: &str) -> Result<()> {
        self.attached.lock().insert(pin.to_owned(), Some(ifindex));
        Ok(())
    }

    fn attach_tc_at_once(&self, program: Program, ifindex: u32, direction: Direction, pin: &str) -> Result<bool> {
        self.attach_tc(program, ifindex, direction, pin).map(|()| true)
    }

    fn attach_xdp(&self, program: Program, ifindex: u32, mode: XdpMode, pin: &str) -> Result<()> {
        if self.lacks_native_xdp && mode == XdpMode::Native {
            let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            return Err(Error::Attach { program: program.name(), target: format!("interface {ifindex}"), source });
        }
        self.attached.lock().insert(pin.to_owned(), Some(ifindex));
        Ok(())
    }

    fn attach_cgroup(&self, _: Program, _: &Path, pin: &str) -> Result<()> {
        self.attached.lock().insert(pin.to_owned(), None);
        Ok(())
    }

    fn detach(&self, pin: &str) -> Result<bool> {
        Ok(self.attached.lock().remove(pin).is_some())
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
