// SPDX-License-Identifier: Apache-2.0
//! A call of the relay, off the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay::fuzz::call(data));
