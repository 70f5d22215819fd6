// SPDX-License-Identifier: Apache-2.0
//! When to delete a CiliumIdentity that no pod uses any more.

use k8s::cilium::HEARTBEAT_ANNOTATION;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s::k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// What to do with an identity.
#[derive(Debug, PartialEq, Eq)]
pub enum GcAction {
    /// Nothing: it is in use, or has not been unused for long enough.
    Nothing,
    /// It is unused: write the time to its annotation.
    Mark,
    /// It is in use again: remove the annotation.
    Unmark,
    /// It has been unused for long enough.
    Delete,
}

/// Decides about a CiliumIdentity. An unused one is first marked with the time, so that the count survives a restart
/// and is the same for every operator, and deleted once it has been unused for `timeout`; one in use loses its mark.
#[must_use]
pub fn decide(identity: &ObjectMeta, used: bool, now: Timestamp, timeout: Duration) -> GcAction {
    let mark = identity.annotations.as_ref().and_then(|annotations| annotations.get(HEARTBEAT_ANNOTATION));
    match (used, mark) {
        (true, None) => GcAction::Nothing,
        (true, Some(_)) => GcAction::Unmark,
        (false, None) => GcAction::Mark,
        (false, Some(text)) => match text.parse::<Timestamp>() {
            Ok(since) if Duration::try_from(now.duration_since(since)).is_ok_and(|unused| unused >= timeout) => {
                GcAction::Delete
            }
            Ok(since) if since <= now => GcAction::Nothing,
            // Not written by us, or before the clock was set back: start over.
            Ok(_) | Err(_) => GcAction::Mark,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1800);

    fn identity(mark: Option<&str>) -> ObjectMeta {
        let annotations = mark.map(|text| [(HEARTBEAT_ANNOTATION.to_owned(), text.to_owned())].into());
        ObjectMeta { annotations, ..ObjectMeta::default() }
    }

    fn after(mark: Option<&str>, used: bool) -> GcAction {
        decide(&identity(mark), used, "2026-01-01T12:00:00Z".parse().unwrap(), TIMEOUT)
    }

    #[test]
    fn an_unused_identity_is_marked_and_deleted_when_the_timeout_has_passed() {
        assert_eq!(after(None, false), GcAction::Mark);
        assert_eq!(after(Some("2026-01-01T11:30:01Z"), false), GcAction::Nothing);
        assert_eq!(after(Some("2026-01-01T11:30:00Z"), false), GcAction::Delete);
        assert_eq!(after(Some("2026-01-01T12:00:00Z"), false), GcAction::Nothing);
        assert_eq!(after(Some("2036-01-01T12:00:00Z"), false), GcAction::Mark, "the clock was wrong then");
        assert_eq!(after(Some("yesterday"), false), GcAction::Mark);
    }

    #[test]
    fn a_used_identity_is_never_deleted_and_loses_its_mark() {
        assert_eq!(after(None, true), GcAction::Nothing);
        assert_eq!(after(Some("2020-01-01T00:00:00Z"), true), GcAction::Unmark);
    }
}
