// SPDX-License-Identifier: Apache-2.0
//! Where programs are attached: the seam between features and the hooks of the kernel.

use std::fmt::Debug;
use std::path::Path;

use crate::Result;
use crate::bpf::{Datapath, Direction, LinkPin, Migration, Program, XdpMode};

/// Attaches programs so that they stay when the process goes. Implemented by the real kernel ([`Datapath`]) and by
/// [`crate::fake::Hooks`]. All operations may wait for the kernel's lock of all interfaces.
pub trait Hooks: Debug + Send + Sync {
    /// See [`Datapath::attach_tc`].
    fn attach_tc(&self, program: Program, ifindex: u32, direction: Direction, pin: &str) -> Result<()>;

    /// See [`Datapath::attach_tc_at_once`].
    fn attach_tc_at_once(&self, program: Program, ifindex: u32, direction: Direction, pin: &str) -> Result<bool>;

    /// See [`Datapath::attach_xdp`].
    fn attach_xdp(&self, program: Program, ifindex: u32, mode: XdpMode, pin: &str) -> Result<()>;

    /// See [`Datapath::attach_cgroup`].
    fn attach_cgroup(&self, program: Program, cgroup: &Path, pin: &str) -> Result<()>;

    /// Detaches what is pinned under a name; false when there was nothing.
    fn detach(&self, pin: &str) -> Result<bool>;

    /// All that is attached.
    fn links(&self) -> Result<Vec<LinkPin>>;

    /// How programs are attached to interfaces: `tcx`, or `tc` by clsact.
    fn attach_mode(&self) -> &'static str;

    /// See [`Datapath::finish_migration`].
    fn finish_migration(&self) -> Result<Migration>;

    /// Has the host's connection tracking pass over that UDP port, or over none.
    fn untrack_udp(&self, port: Option<u16>) -> Result<()>;
}

impl Hooks for Datapath {
    fn attach_tc(&self, program: Program, ifindex: u32, direction: Direction, pin: &str) -> Result<()> {
        Self::attach_tc(self, program, ifindex, direction, pin)
    }

    fn attach_tc_at_once(&self, program: Program, ifindex: u32, direction: Direction, pin: &str) -> Result<bool> {
        Self::attach_tc_at_once(self, program, ifindex, direction, pin)
    }

    fn attach_xdp(&self, program: Program, ifindex: u32, mode: XdpMode, pin: &str) -> Result<()> {
        Self::attach_xdp(self, program, ifindex, mode, pin)
    }

    fn attach_cgroup(&self, program: Program, cgroup: &Path, pin: &str) -> Result<()> {
        Self::attach_cgroup(self, program, cgroup, pin)
    }

    fn detach(&self, pin: &str) -> Result<bool> {
        Self::detach(self, pin)
    }

    fn links(&self) -> Result<Vec<LinkPin>> {
        Self::links(self)
    }

    fn attach_mode(&self) -> &'static str {
        Self::attach_mode(self)
    }

    fn finish_migration(&self) -> Result<Migration> {
        Self::finish_migration(self)
    }

    fn untrack_udp(&self, port: Option<u16>) -> Result<()> {
        match port {
            Some(port) => crate::nft::untrack_udp(port),
            None => crate::nft::cleanup(),
        }
    }
}
