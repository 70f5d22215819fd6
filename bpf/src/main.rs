// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The datapath: one object with all programs, loaded once per node and shared by every pod.
//!
//! `programs/` has one file per hook and reads like the life of a packet; each stage has a file of its own beside this
//! one. Every packet first meets the flow table (`conntrack`): a known flow is replayed, anything else is decided by the
//! stages and remembered. A verdict is an `i32`: a tc action when it is not negative, else minus a drop reason's code, since
//! a BPF function returns one register. Each program has one exit (`events::finish`) that turns it into an action, a
//! counter and an event, so that no drop is silent.
#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

mod arp;
mod config;
mod conntrack;
mod ctx;
mod encap;
mod events;
mod icmp;
mod ipcache;
mod lb;
mod maps;
mod nat;
mod parse;
mod policy;
mod programs;
mod redirect;
mod route;
mod scratch;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses the endless loop, so a program with a path that can panic does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";
