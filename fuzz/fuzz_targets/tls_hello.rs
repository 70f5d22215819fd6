// SPDX-License-Identifier: Apache-2.0
//! The first bytes of a TLS client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::hello(data));
