// SPDX-License-Identifier: Apache-2.0
//! `BPF_PROG_TEST_RUN`: a program run on a packet made by hand.

use std::io;
use std::os::fd::BorrowedFd;

use super::{Command, address, address_mut, bpf, raw};

#[repr(C)]
struct Attributes {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// What a program made of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned, for instance `TC_ACT_SHOT`.
    pub verdict: i32,
    /// The packet after it.
    pub packet: Vec<u8>,
    /// Nanoseconds per run.
    pub duration: u32,
}

/// `struct __sk_buff` in words, and the words that we set.
const CONTEXT_WORDS: usize = 48;
const INGRESS_IFINDEX: usize = 9;
const IFINDEX: usize = 10;
const GSO_SIZE: usize = 44;

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`.
const SUMMED: u32 = 1 << 2;

/// Room for what a program may prepend.
const HEADROOM: usize = 256;

/// Where a packet is when a program sees it, and what is known of it there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Interface on which the program runs.
    pub ifindex: u32,
    /// Interface that the packet came in by, or 0 when it was made on this node.
    pub arrived_by: u32,
    /// Bytes of each packet, if it stands for several (`gso_size`), else 0.
    pub batch_size: u32,
    /// A card has made the sum of the whole packet. The run fails with `EBADMSG` if that is wrong afterwards, and with `EINVAL` where
    /// the kernel is too old for that (6.18 is not).
    pub summed: bool,
}

/// Runs a traffic control program on an Ethernet frame.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], place: Place, repeat: u32) -> io::Result<TestRun> {
    let mut context = [0_u32; CONTEXT_WORDS];
    for (word, slot) in context.iter_mut().enumerate() {
        match word {
            INGRESS_IFINDEX => *slot = place.arrived_by,
            IFINDEX => *slot = place.ifindex,
            GSO_SIZE => *slot = place.batch_size,
            _ => {}
        }
    }
    run(program, packet, &context, if place.summed { SUMMED } else { 0 }, repeat)
}

/// Runs an XDP program on an Ethernet frame that arrives at that interface.
pub(crate) fn test_run_xdp(program: BorrowedFd<'_>, packet: &[u8], ifindex: u32, repeat: u32) -> io::Result<TestRun> {
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, size(packet.len()), 0, ifindex, 0, 0];
    run(program, packet, &context, 0, repeat)
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn run(program: BorrowedFd<'_>, packet: &[u8], context: &[u32], flags: u32, repeat: u32) -> io::Result<TestRun> {
    let mut out = vec![0; packet.len() + HEADROOM];
    let mut attr = Attributes {
        program: raw(program),
        verdict: 0,
        data_size_in: size(packet.len()),
        data_size_out: size(out.len()),
        data_in: address(packet),
        data_out: address_mut(&mut out),
        repeat,
        duration: 0,
        ctx_size_in: size(size_of_val(context)),
        ctx_size_out: 0,
        ctx_in: address(context),
        ctx_out: 0,
        flags,
        cpu: 0,
        batch_size: 0,
        pad: 0,
    };
    bpf(Command::ProgTestRun, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    Ok(TestRun { verdict: attr.verdict.cast_signed(), packet: out, duration: attr.duration })
}
