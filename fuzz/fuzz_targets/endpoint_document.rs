// SPDX-License-Identifier: Apache-2.0
//! Files that the agent reads, and what is asked of its socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzz::document(data));
