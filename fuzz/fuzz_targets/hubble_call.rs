// SPDX-License-Identifier: Apache-2.0
//! A call of an agent, off the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hubble::fuzz::agent(data));
