// SPDX-License-Identifier: Apache-2.0
//! What a proxy reads of its disk, and frames between it and the agent.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::state(data));
