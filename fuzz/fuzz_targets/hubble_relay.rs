// SPDX-License-Identifier: Apache-2.0
//! A call of a relay, and what peer service and agents tell it, off the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay::fuzz::relay(data));
