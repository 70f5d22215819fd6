// SPDX-License-Identifier: Apache-2.0
//! Identities of the cluster as this node sees them, and how new ones are created.
//!
//! Two agents may create an identity for the same labels at the same time. Both stay valid: every policy is compiled
//! for both. A lookup by labels returns the lowest number; whoever already has one keeps it.

pub(crate) mod allocate;
mod api;
pub mod gc;

use model::{Identity, IdentityId, Labels};
use std::collections::{BTreeMap, BTreeSet};

pub use api::ApiStore;

/// The outcome of an attempt to create an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It exists, with these labels.
    Done,
    /// The number belongs to other labels.
    Taken,
}

/// The API server could not create the identity; it is retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CiliumIdentity {id}: {reason}")]
pub struct StoreError {
    /// Number.
    pub id: IdentityId,
    /// Why.
    pub reason: String,
    pub kind: StoreErrorKind,
}

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Time.
    Unavailable,
    /// Nothing, for the same labels.
    Permanent,
    /// Whoever has made a rule of the cluster: a permission, an admission webhook, a quota.
    Forbidden,
}

/// Where identities are stored. Implemented by [`ApiStore`] and by tests.
pub trait IdentityStore: Send + Sync + 'static {
    /// Creates an identity, unless its number belongs to other labels.
    fn create(&self, identity: &Identity) -> impl Future<Output = Result<Created, StoreError>> + Send;
}

/// Identities by number and by labels.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    by_id: BTreeMap<IdentityId, Labels>,
    by_labels: BTreeMap<Labels, BTreeSet<IdentityId>>,
}

impl Identities {
    /// Adds an identity. Returns whether its number had other labels.
    pub(crate) fn upsert(&mut self, identity: &Identity) -> bool {
        let before = self.by_id.get(&identity.id);
        if before == Some(&identity.labels) {
            return false;
        }
        let relabelled = before.is_some();
        self.remove(identity.id);
        self.by_id.insert(identity.id, identity.labels.clone());
        self.by_labels.entry(identity.labels.clone()).or_default().insert(identity.id);
        relabelled
    }

    /// Removes an identity.
    pub(crate) fn remove(&mut self, id: IdentityId) {
        let Some(labels) = self.by_id.remove(&id) else { return };
        if let Some(ids) = self.by_labels.get_mut(&labels) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_labels.remove(&labels);
            }
        }
    }

    /// The labels of an identity.
    #[must_use]
    pub(crate) fn labels(&self, id: IdentityId) -> Option<&Labels> {
        self.by_id.get(&id)
    }

    /// The identity to use for labels: the current one if it has them, otherwise the lowest.
    #[must_use]
    pub(crate) fn choose(&self, labels: &Labels, current: Option<IdentityId>) -> Option<IdentityId> {
        let ids = self.by_labels.get(labels)?;
        current.filter(|id| ids.contains(id)).or_else(|| ids.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u32, app: &str) -> Identity {
        Identity { id: IdentityId(id), labels: [model::Label::k8s("app", app)].into_iter().collect() }
    }

    #[test]
    fn of_two_identities_with_equal_labels_the_lowest_is_taken_and_the_one_in_use_is_kept() {
        let mut known = Identities::default();
        [identity(900, "web"), identity(400, "web"), identity(300, "db")]
            .iter()
            .for_each(|i| assert!(!known.upsert(i)));
        let web = identity(900, "web").labels;
        assert_eq!(known.choose(&web, None), Some(IdentityId(400)));
        assert_eq!(known.choose(&web, Some(IdentityId(900))), Some(IdentityId(900)));
        assert_eq!(known.choose(&web, Some(IdentityId(300))), Some(IdentityId(400)));
        known.remove(IdentityId(400));
        assert_eq!(known.choose(&web, None), Some(IdentityId(900)));
        assert!(known.upsert(&identity(900, "db")) && !known.upsert(&identity(900, "db")));
        assert_eq!(known.choose(&web, None), None);
    }
}
