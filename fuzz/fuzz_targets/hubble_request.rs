// SPDX-License-Identifier: Apache-2.0
//! A GetFlows request off the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hubble::fuzz::request(data));
