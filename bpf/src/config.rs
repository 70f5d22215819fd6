// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The node's constants, in read-only data: set before load, so that the verifier removes what they switch off.

use aya_ebpf::Global;

macro_rules! globals {
    ($($(#[$meta:meta])* $global:ident, $field:ident : $ty:ty = $default:literal;)+) => {
        $($(#[$meta])* #[unsafe(no_mangle)] pub static $global: Global<$ty> = Global::new($default);)+
    };
}

abi::for_each_program_constant!(globals);

/// Whether a switch is on.
#[inline(always)]
pub fn on(switch: &Global<u8>) -> bool {
    switch.load() != 0
}
