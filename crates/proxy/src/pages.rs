// SPDX-License-Identifier: Apache-2.0
//! Memory in small pages. The allocator asks for large ones, and each that is touched at all is resident as a whole: with five thousand routes
//! that was as much again as they take.

use nix::sys::prctl::set_thp_disable;

/// Has this process, and those that it starts, use small pages from now on.
pub(crate) fn be_small() {
    if let Err(error) = set_thp_disable(true) {
        tracing::warn!(%error, "more memory will be resident than is used");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_that_is_to_be_small_has_no_large_pages() {
        super::be_small();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let large = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
        assert_eq!(large.map(str::trim), Some("0"));
    }
}
