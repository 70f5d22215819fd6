// SPDX-License-Identifier: Apache-2.0
//! What the kernel's programs may call. The kernel is asked, since its version would not tell: distributions bring helpers
//! back to older kernels. Which ones are used without a switch, and from when on there is what: docs/reference/kernels.md.

use abi::config::ProgramConfig;

use crate::sys::probe::{Kind, may_call};

const KTIME_GET_COARSE_NS: u32 = 160;
const SET_RETVAL: u32 = 187;

/// Helpers that the programs can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The coarse clock (5.11). Without it, each packet reads the fine one.
    pub coarse_clock: bool,
    /// A program for sockets may choose the error (6.1). Without it, a service without a backend is `EPERM`.
    pub set_retval: bool,
}

impl Features {
    /// Asks the running kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        Self {
            coarse_clock: may_call(Kind::CLASSIFIER, KTIME_GET_COARSE_NS),
            set_retval: may_call(Kind::CONNECT4, SET_RETVAL),
        }
    }

    /// The constants without what is not there.
    pub(super) fn limit(self, config: ProgramConfig) -> ProgramConfig {
        ProgramConfig {
            coarse_clock: config.coarse_clock * u8::from(self.coarse_clock),
            set_retval: config.set_retval * u8::from(self.set_retval),
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use abi::config::ProgramConfig;

    use super::Features;

    #[test]
    fn what_the_kernel_lacks_is_switched_off_and_nothing_is_switched_on() {
        let on = ProgramConfig::default();
        let off = ProgramConfig { coarse_clock: 0, set_retval: 0, ..on };
        let (all, none) =
            (Features { coarse_clock: true, set_retval: true }, Features { coarse_clock: false, set_retval: false });
        assert_eq!((all.limit(on), all.limit(off)), (on, off));
        assert_eq!((none.limit(on), none.limit(off)), (off, off));
    }
}
