// SPDX-License-Identifier: Apache-2.0
//! Packets that a raw socket delivers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| health::fuzz::reply(data));
