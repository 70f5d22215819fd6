// SPDX-License-Identifier: Apache-2.0
//! Objects of the API server, as users and other agents write them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Each knows its kinds by the first byte.
    policy::fuzz::object(data);
    services::fuzz::object(data);
    node::fuzz::object(data);
    endpoint::fuzz::object(data);
    lbipam::fuzz::object(data);
    l2::fuzz::object(data);
    gateway::fuzz::object(data);
});
