// SPDX-License-Identifier: Apache-2.0
//! `BPF_PROG_LOAD` of programs that do nothing but call one helper, to learn whether the kernel has it. Nothing else is
//! loaded from here: the real programs are aya's business.

use std::io;

use super::{Command, address, bpf_fd};

/// Head of the member of `union bpf_attr` for loading.
#[repr(C)]
struct Attributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// A kind of program: `enum bpf_prog_type` and, where it matters, `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    number: u32,
    attach_type: u32,
}

impl Kind {
    pub(crate) const CLASSIFIER: Self = Self { number: 3, attach_type: 0 };
    pub(crate) const CONNECT4: Self = Self { number: 18, attach_type: 10 };
}

/// Whether a program of that kind may call the helper (`enum bpf_func_id`) with zero as its first argument.
///
/// Only a clear no is one. Whatever else goes wrong would go wrong with the real programs too, and is told then.
pub(crate) fn may_call(kind: Kind, helper: u32) -> bool {
    const MOVE: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    let [a, b, c, d] = helper.to_ne_bytes();
    let instructions = [
        // r1 = 0
        [MOVE, 1, 0, 0, 0, 0, 0, 0],
        [CALL, 0, 0, 0, a, b, c, d],
        // r0 = 1, which every kind may return
        [MOVE, 0, 0, 0, 1, 0, 0, 0],
        [EXIT, 0, 0, 0, 0, 0, 0, 0],
    ];
    let license = b"Dual BSD/GPL\0";
    let mut attr = Attributes {
        kind: kind.number,
        count: u32::try_from(instructions.len()).unwrap_or_default(),
        instructions: address(&instructions),
        license: address(license),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        ifindex: 0,
        attach_type: kind.attach_type,
    };
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    !bpf_fd(Command::ProgLoad, &mut attr).as_ref().is_err_and(refused)
}
