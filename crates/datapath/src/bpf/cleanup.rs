// SPDX-License-Identifier: Apache-2.0
//! Leaving nothing behind.

use std::path::Path;

use super::attach::{detach_link, remove_all};
use super::{clsact, pins};
use crate::Result;

/// Removes all maps, programs and links of all versions: pods lose their policy and services with it. Afterwards no packet
/// meets a program.
pub fn post_uninstall_cleanup(bpffs: &Path) -> Result<()> {
    let home = pins::home(bpffs);
    for version in pins::list(&home)? {
        let version = home.join(version);
        clsact::remove_recorded(&version.join("filters"))?;
        let links = version.join("links");
        for name in pins::list(&links)? {
            detach_link(&links.join(pins::escape(&name)))?;
        }
    }
    remove_all(&home).map(drop)
}
