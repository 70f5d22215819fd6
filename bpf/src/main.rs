// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The datapath: one object with all programs, loaded once per node and shared by every pod.
//!
//! `programs/` has one file per hook. Every packet first meets the flow table (`flows`): a known flow is replayed (`send`), anything
//! else is decided by the stages (`stages`), one list of them for all hooks, and remembered. What becomes of a packet is a `Verdict`;
//! each program has one exit (`exit::finish`) that turns it into an action, a counter and an event, so that no drop is silent.
//! Stages see a `Packet`, not the context of one kind of hook.
#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

mod addresses;
mod answer;
mod bytes;
mod config;
mod direct;
mod encap;
mod epochs;
mod events;
mod exit;
mod fib;
mod flows;
mod fragment;
mod headers;
mod hook;
mod ipcache;
mod ipip;
mod lb;
mod maps;
mod neighbour;
mod netns;
mod packet;
mod parse;
mod pkt;
mod pods;
mod programs;
mod record;
mod redirect;
mod rewrite;
mod scratch;
mod send;
mod skb;
mod sock_events;
mod stages;
mod verdict;
mod xdp;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses the endless loop, so a program with a path that can panic does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";
