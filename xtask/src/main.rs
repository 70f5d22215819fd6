// SPDX-License-Identifier: Apache-2.0
//! Checks and generators that the Makefile calls.

fn main() {}
