// SPDX-License-Identifier: Apache-2.0
//! Leaving nothing behind.

use std::path::Path;

use super::attach::{detach_link, remove_all};
use super::{clsact, pins};
use crate::Result;

/// Removes all maps, programs and links of all versions: pods lose their policy and services with it. Afterwards no packet
/// meets a program. What cannot be removed does not keep the rest; the first such error is returned.
pub fn post_uninstall_cleanup(bpffs: &Path) -> Result<()> {
    let home = pins::home(bpffs);
    let mut result = Ok(());
    for version in pins::list(&home)? {
        let version = home.join(version);
        result = result.and(clsact::remove_recorded(&version.join("filters")));
        let links = version.join("links");
        for name in pins::list(&links)? {
            result = result.and(detach_link(&links.join(pins::escape(&name))).map(drop));
        }
    }
    result.and(remove_all(&home).map(drop))
}
