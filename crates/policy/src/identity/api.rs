// SPDX-License-Identifier: Apache-2.0
//! Creates identities as CiliumIdentity objects.

use super::{Created, IdentityStore, StoreError};
use crate::labels::extended_key;
use k8s::cilium::CiliumIdentity;
use k8s::kube::{self, Api, api::PostParams};
use model::{Identity, LabelSource, Labels};

/// The one label by which tools select CiliumIdentities.
const NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// The API server.
#[derive(Clone, Debug)]
pub struct ApiStore {
    api: Api<CiliumIdentity>,
}

impl ApiStore {
    /// Uses that API.
    #[must_use]
    pub const fn new(api: Api<CiliumIdentity>) -> Self {
        Self { api }
    }
}

/// The object of an identity.
fn object(identity: &Identity) -> CiliumIdentity {
    let mut object = CiliumIdentity::named(&identity.id.to_string());
    object.security_labels = security_labels(&identity.labels);
    // An identity's labels may be too long for object labels; a namespace name always fits.
    let k8s = identity.labels.iter().filter(|label| label.source == LabelSource::K8s);
    let namespace = k8s.filter(|label| &*label.key == NAMESPACE);
    object.metadata.labels = Some(namespace.map(|label| (label.key.to_string(), label.value.to_string())).collect());
    object
}

fn security_labels(labels: &Labels) -> std::collections::BTreeMap<String, String> {
    labels.iter().map(|label| (extended_key(label), label.value.to_string())).collect()
}

impl IdentityStore for ApiStore {
    async fn create(&self, identity: &Identity) -> Result<Created, StoreError> {
        let error = |source: kube::Error| StoreError {
            id: identity.id,
            reason: k8s::chain(&source),
            permanent: k8s::is_permanent(&source),
        };
        match self.api.create(&PostParams::default(), &object(identity)).await {
            Ok(_) => Ok(Created::Done),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Perhaps created by ourselves, in an attempt whose response was lost.
                let there = self.api.get_opt(&identity.id.to_string()).await.map_err(error)?;
                let same = there.is_some_and(|there| there.security_labels == security_labels(&identity.labels));
                Ok(if same { Created::Done } else { Created::Taken })
            }
            Err(source) => Err(error(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{IdentityId, Label};

    #[test]
    fn the_object_is_named_by_number_and_reads_back() {
        let labels = [Label::k8s("app", "web"), Label::k8s("io.kubernetes.pod.namespace", "shop")];
        let identity = Identity { id: IdentityId(4711), labels: labels.into_iter().collect() };
        let object = object(&identity);
        assert_eq!(object.metadata.name.as_deref(), Some("4711"));
        assert_eq!(object.security_labels["k8s:app"], "web");
        assert_eq!(object.metadata.labels.clone().unwrap()["io.kubernetes.pod.namespace"], "shop");
        assert_eq!(object.metadata.labels.as_ref().unwrap().len(), 1, "other labels may be too long for an object");
        assert_eq!(crate::ingest_identity(&object).unwrap(), Some(identity));
    }
}
