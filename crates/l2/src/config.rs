// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use model::config::{Reader, keys, shared};
use std::time::Duration;

const SCHEMA: &str = r#"{"type": ["string", "null"]}"#;

keys! {
    /// Whether and how addresses of Services are announced.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// Announce addresses of Services on the node's links, as CiliumL2AnnouncementPolicies say.
        #[key("enable-l2-announcements", default = "false", value = "l2announcements.enabled")]
        pub enabled: bool,
        /// For how long no other node announces a Service's addresses after the last renewal of its Lease.
        #[key(
            "l2-announcements-lease-duration",
            default = "15s",
            optional = "l2announcements.leaseDuration",
            initial = "null",
            schema = SCHEMA,
        )]
        pub lease: Duration,
        /// For how long a node goes on announcing when it cannot renew the Lease; shorter than the lease.
        #[key(
            "l2-announcements-renew-deadline",
            default = "5s",
            optional = "l2announcements.leaseRenewDeadline",
            initial = "null",
            schema = SCHEMA,
        )]
        pub renew: Duration,
        /// How often a node renews the Lease, and others try to take it; shorter than the renew deadline.
        #[key(
            "l2-announcements-retry-period",
            default = "2s",
            optional = "l2announcements.leaseRetryPeriod",
            initial = "null",
            schema = SCHEMA,
        )]
        pub retry: Duration,
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
    }
    check Self::refuse_misfits;
}

impl Config {
    /// A node that stops too late would answer beside its successor.
    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        let text = |key| read.given(key).unwrap_or_default().to_owned();
        let (lease, renew, retry) = (
            text("l2-announcements-lease-duration"),
            text("l2-announcements-renew-deadline"),
            text("l2-announcements-retry-period"),
        );
        if self.lease < Duration::from_secs(1) {
            read.refuse("l2-announcements-lease-duration", &lease, "at least 1s");
        }
        if self.renew >= self.lease {
            read.refuse("l2-announcements-renew-deadline", &renew, "shorter than l2-announcements-lease-duration");
        }
        if self.retry >= self.renew || self.retry.is_zero() {
            read.refuse(
                "l2-announcements-retry-period",
                &retry,
                "shorter than l2-announcements-renew-deadline, and not 0",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use model::config::{ConfigError, Group};

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        assert_eq!(Config::parse(&documented), parse(&[]));
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn a_holder_that_would_not_stop_in_time_is_refused() {
        let (lease, renew, retry) =
            ("l2-announcements-lease-duration", "l2-announcements-renew-deadline", "l2-announcements-retry-period");
        assert!(parse(&[(lease, "3s"), (renew, "1s"), (retry, "500ms")]).is_ok());
        let refused = |keys: &[(&str, &str)]| -> Vec<&str> { parse(keys).unwrap_err().iter().map(|e| e.key).collect() };
        assert_eq!(refused(&[(lease, "3s")]), [renew]);
        assert_eq!(refused(&[(renew, "15s")]), [renew]);
        assert_eq!(refused(&[(retry, "5s")]), [retry]);
        assert_eq!(refused(&[(retry, "0")]), [retry]);
        assert_eq!(refused(&[(lease, "900ms"), (renew, "500ms"), (retry, "100ms")]), [lease]);
    }
}
