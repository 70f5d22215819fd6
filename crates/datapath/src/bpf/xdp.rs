// SPDX-License-Identifier: Apache-2.0
//! Attaching a program before the stack (XDP), by a pinned link as elsewhere.

use std::io;
use std::os::fd::AsFd;

use super::pins::pin_over;
use super::{Datapath, Program};
use crate::{Error, Result, sys};

/// `BPF_XDP`.
const ATTACH_TYPE: u32 = 37;

/// Where a program runs before the stack. An interface has programs in one place only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum XdpMode {
    /// In the driver, before the kernel has made anything of a packet.
    Native,
    /// In the kernel, at the first place that all drivers have in common.
    Generic,
}

impl XdpMode {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The other place.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Native => Self::Generic,
            Self::Generic => Self::Native,
        }
    }

    /// `XDP_FLAGS_DRV_MODE` or `XDP_FLAGS_SKB_MODE`.
    const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

impl Datapath {
    /// Attaches a program before the stack, to the interface of that index. One that is attached under that name stays where it runs, and is
    /// replaced: a name belongs to one mode.
    pub fn attach_xdp(&self, program: Program, ifindex: u32, mode: XdpMode, pin_name: &str) -> Result<()> {
        let fd = self.program(program)?;
        let target = || format!("interface {ifindex}, {} XDP", mode.name());
        let failed = |source| Error::Attach { program: program.name(), target: target(), source };
        let path = self.pins.link(pin_name);
        if let Some(link) = sys::open_pin(&path).map_err(failed)? {
            let is_there = sys::link_info(link.as_fd()).map(|info| info.ifindex() == Some(ifindex)).map_err(failed)?;
            if is_there {
                return sys::link_update(link.as_fd(), fd).map_err(failed);
            }
        }
        if program != Program::NetdevXdp {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let link = sys::link_create_with(fd, ifindex, ATTACH_TYPE, mode.flags()).map_err(failed)?;
        pin_over(link.as_fd(), &path)
    }
}
