// SPDX-License-Identifier: Apache-2.0
//! Answers of the kernel's packet filter and of its lists of sockets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    datapath::nft::fuzz::answers(data);
    datapath::sockets::fuzz::sockets(data);
});
