// SPDX-License-Identifier: Apache-2.0
//! Answers of the kernel's packet filter.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| datapath::nft::fuzz::answers(data));
