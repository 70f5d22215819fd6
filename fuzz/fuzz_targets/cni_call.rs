// SPDX-License-Identifier: Apache-2.0
//! A call of the CNI plugin: its environment and its configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzz::call(data));
