// SPDX-License-Identifier: Apache-2.0
//! Routes and a request, against a look at each route.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::fuzz::route_match(data));
