// SPDX-License-Identifier: Apache-2.0
//! CiliumEnvoyConfigs, of which every author of a namespace may write any.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzz::envoy_config(data));
