// SPDX-License-Identifier: Apache-2.0
//! Attaching programs to interfaces and control groups, so that they stay when the agent goes.
//!
//! A link lives under a pin. Attaching again under the same name replaces the program in the link: no packet passes
//! without one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::pins::{self, failed, pin_over};
use super::{Datapath, Program, clsact};
use crate::{Error, Result, sys};

/// Which way packets pass an interface, as seen by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into the host.
    Ingress,
    /// Out of the host.
    Egress,
}

impl Direction {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// `BPF_TCX_INGRESS` or `BPF_TCX_EGRESS`.
    const fn tcx(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

/// Something that is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkPin {
    /// Name of the pin.
    pub name: String,
    /// Index of the interface, for programs of interfaces. 0 when the interface has gone.
    pub ifindex: Option<u32>,
}

/// No interface has this index, so the answer tells whether the kernel knows tcx.
const NO_INTERFACE: u32 = i32::MAX.cast_unsigned();

impl Datapath {
    /// Attaches a program to the interface of that index, in the network namespace of the calling thread.
    ///
    /// By a pinned tcx link; on a kernel without tcx by a filter below a clsact queueing discipline.
    pub fn attach_tc(&self, program: Program, ifindex: u32, direction: Direction, pin_name: &str) -> Result<()> {
        let fd = self.program(program)?;
        let failed = |source| Error::Attach {
            program: program.name(),
            target: format!("{} of interface {ifindex}", direction.name()),
            source,
        };
        if self.force_clsact || !has_tcx(fd) {
            return clsact::attach(&self.pins, program, fd, (ifindex, direction), pin_name);
        }
        if !self.renew_tcx(fd, ifindex, direction, pin_name).map_err(failed)? {
            let link = sys::link_create(fd, ifindex, direction.tcx()).map_err(failed)?;
            pin_over(link.as_fd(), &self.pins.link(pin_name))?;
        }
        // The link comes first in the kernel; a filter that did its work until now is not needed any more.
        clsact::detach(&self.pins, pin_name).map(drop)
    }

    /// Attaches a program at once. A new tcx link waits for all processors to pass a quiet state, some ten milliseconds
    /// under the lock of all interfaces; a filter below clsact does not. So this renews a link that is there, and else
    /// makes a filter. False says that [`attach_tc`](Self::attach_tc) is to follow, which puts the link in its place.
    pub fn attach_tc_at_once(
        &self,
        program: Program,
        ifindex: u32,
        direction: Direction,
        pin_name: &str,
    ) -> Result<bool> {
        let fd = self.program(program)?;
        let failed = |source| Error::Attach {
            program: program.name(),
            target: format!("{} of interface {ifindex}", direction.name()),
            source,
        };
        let by_link = !self.force_clsact && has_tcx(fd);
        if by_link && self.renew_tcx(fd, ifindex, direction, pin_name).map_err(failed)? {
            return Ok(true);
        }
        match clsact::attach(&self.pins, program, fd, (ifindex, direction), pin_name) {
            // A kernel may have tcx and no clsact.
            Err(_) if by_link => self.attach_tc(program, ifindex, direction, pin_name).map(|()| true),
            made => made.map(|()| !by_link),
        }
    }

    /// Puts the program into the pinned link of that interface and direction; false when there is none.
    fn renew_tcx(&self, fd: BorrowedFd<'_>, ifindex: u32, direction: Direction, pin_name: &str) -> io::Result<bool> {
        let path = self.pins.link(pin_name);
        let Some(link) = sys::open_pin(&path)? else { return Ok(false) };
        let info = sys::link_info(link.as_fd())?;
        if info.ifindex() != Some(ifindex) || info.attach_type() != direction.tcx() {
            return Ok(false);
        }
        sys::link_update(link.as_fd(), fd).map(|()| true)
    }

    /// How programs are attached to interfaces, as the API names it: `tcx`, or `tc` by clsact.
    #[must_use]
    pub fn attach_mode(&self) -> &'static str {
        let tcx = !self.force_clsact && self.program(Program::PodEgress).is_ok_and(has_tcx);
        if tcx { "tcx" } else { "tc" }
    }

    /// Attaches a program for sockets to a control group (version 2) and all below it, by a pinned link.
    pub fn attach_cgroup(&self, program: Program, cgroup: &Path, pin_name: &str) -> Result<()> {
        let fd = self.program(program)?;
        let failed = |source| Error::Attach { program: program.name(), target: cgroup.display().to_string(), source };
        let attach_type =
            program.cgroup_attach_type().ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EINVAL)))?;
        let folder = File::open(cgroup).map_err(failed)?;
        let id = folder.metadata().map_err(failed)?.ino();
        let path = self.pins.link(pin_name);
        if let Some(link) = open_link(&path)? {
            let info = sys::link_info(link.as_fd()).map_err(failed)?;
            if info.cgroup() == Some(id) && info.attach_type() == attach_type {
                return sys::link_update(link.as_fd(), fd).map_err(failed);
            }
        }
        let link = sys::link_create(fd, sys::target_of(&folder), attach_type).map_err(failed)?;
        pin_over(link.as_fd(), &path)
    }

    /// Detaches what was attached under that name; false when nothing was. Afterwards no packet meets the program.
    pub fn detach(&self, pin_name: &str) -> Result<bool> {
        let link = detach_link(&self.pins.link(pin_name))?;
        Ok(clsact::detach(&self.pins, pin_name)? || link)
    }

    /// All that is attached.
    pub fn links(&self) -> Result<Vec<LinkPin>> {
        let mut links = clsact::attached(&self.pins)?;
        for name in pins::list(&self.pins.links())? {
            let path = self.pins.link(&name);
            if let Some(link) = open_link(&path)? {
                let info = sys::link_info(link.as_fd()).map_err(|source| failed("inspect", &path, source))?;
                links.push(LinkPin { name, ifindex: info.ifindex() });
            }
        }
        links.sort();
        Ok(links)
    }
}

fn open_link(path: &Path) -> Result<Option<OwnedFd>> {
    sys::open_pin(path).map_err(|source| failed("open", path, source))
}

/// Ends a pinned link and removes its pin; false when there was none.
pub(super) fn detach_link(path: &Path) -> Result<bool> {
    if let Some(link) = open_link(path)? {
        sys::link_detach(link.as_fd()).map_err(|source| failed("detach the link of", path, source))?;
    }
    pins::remove(path)
}

fn has_tcx(program: BorrowedFd<'_>) -> bool {
    let answer = sys::link_create(program, NO_INTERFACE, Direction::Ingress.tcx());
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

/// Removes a folder and all in it; false when there was none.
pub(super) fn remove_all(path: &Path) -> Result<bool> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed("remove", path, source)),
    }
}
