// SPDX-License-Identifier: Apache-2.0
//! placeholder
/// x
pub fn main() {}
