// SPDX-License-Identifier: Apache-2.0
//! Leaving nothing behind.

use std::path::Path;

use super::attach::remove_all;
use super::{clsact, pins};
use crate::Result;

/// Removes all maps, programs and links of all versions: pods lose their policy and services with it.
pub fn post_uninstall_cleanup(bpffs: &Path) -> Result<()> {
    let home = pins::home(bpffs);
    for version in pins::list(&home)? {
        clsact::remove_recorded(&home.join(version).join("filters"))?;
    }
    remove_all(&home).map(drop)
}
