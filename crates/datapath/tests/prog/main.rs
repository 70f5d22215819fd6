// SPDX-License-Identifier: Apache-2.0
//! The programs on hand-made packets: maps in, packet in; verdict, packet, map effects and event out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod announced;
mod arrivals;
mod attacks;
mod checksums;
mod choice;
mod damaged;
mod devices;
mod direct;
mod early;
mod encap;
mod epochs;
mod errors;
mod floods;
mod forward;
mod fragments;
mod hairpin;
mod host_backend;
mod ipip;
mod kept;
mod malformed;
mod masquerade;
mod model;
mod neighbour;
mod offer;
mod outside;
mod packet;
mod pieces;
mod policy;
mod random;
mod returned;
mod rings;
mod run;
mod service;
mod size;
mod spoofing;
mod state;
mod tagged;
mod through;
mod too_big;
mod tunnel;
mod turned;
mod unserved;
mod wire;
mod world;

#[path = "../kernel/sandbox.rs"]
mod sandbox;
