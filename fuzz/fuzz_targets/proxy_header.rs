// SPDX-License-Identifier: Apache-2.0
//! The first bytes of a load balancer's connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::proxy_header(data));
