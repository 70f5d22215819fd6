// SPDX-License-Identifier: Apache-2.0
//! The one binary: looks at the name it was called by and runs that component.

fn main() {}
