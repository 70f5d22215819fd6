// SPDX-License-Identifier: Apache-2.0
//! Texts of Hubble's filters: labels, globs, regular expressions, names, addresses and numbers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hubble::fuzz::filter(data));
