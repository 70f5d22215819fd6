// SPDX-License-Identifier: Apache-2.0
//! Creates identities as CiliumIdentity objects.

use super::{Created, IdentityStore, StoreError, StoreErrorKind};
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

fn kind(error: &kube::Error) -> StoreErrorKind {
    if k8s::is_permanent(error) {
        StoreErrorKind::Permanent
    } else if k8s::is_forbidden(error) {
        StoreErrorKind::Forbidden
    } else {
        StoreErrorKind::Unavailable
    }
}

impl IdentityStore for ApiStore {
    async fn create(&self, identity: &Identity) -> Result<Created, StoreError> {
        let error =
            |source: kube::Error| StoreError { id: identity.id, reason: k8s::chain(&source), kind: kind(&source) };
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
    use axum::http::{Method, Request};
    use k8s::kube::client::Body;
    use model::{IdentityId, Label};
    use serde_json::json;

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

    /// What comes of a creation to which the API server answers with `code`, when `there` has the number afterwards.
    async fn create(code: u16, there: Option<&Labels>) -> Result<Created, StoreError> {
        let labels = |app: &str| [Label::k8s("app", app)].into_iter().collect::<Labels>();
        let identity = Identity { id: IdentityId(4711), labels: labels("web") };
        let reason = |code| if code == 404 { "NotFound" } else { "" };
        let status = move |code: u16| json!({"kind": "Status", "apiVersion": "v1", "code": code, "message": "no", "reason": reason(code)});
        let made = serde_json::to_value(object(&identity)).unwrap();
        let there = there.map(|labels| {
            serde_json::to_value(object(&Identity { labels: labels.clone(), ..identity.clone() })).unwrap()
        });
        let service = tower::service_fn(move |request: Request<Body>| {
            let (code, answer) = match (request.method(), &there) {
                (&Method::POST, _) if code == 201 => (code, made.clone()),
                (&Method::POST, _) => (code, status(code)),
                (_, Some(object)) => (200, object.clone()),
                (_, None) => (404, status(404)),
            };
            let body = Body::from(answer.to_string().into_bytes());
            let response = axum::http::Response::builder().status(code).body(body).unwrap();
            async { Ok::<_, std::convert::Infallible>(response) }
        });
        let client = kube::Client::new(service, "default");
        ApiStore::new(Api::all(client)).create(&identity).await
    }

    #[tokio::test]
    async fn a_number_that_is_there_already_is_ours_only_with_our_labels() {
        let (ours, others) = ("web", "db");
        let labels = |app: &str| [Label::k8s("app", app)].into_iter().collect::<Labels>();
        assert_eq!(create(201, None).await.unwrap(), Created::Done);
        assert_eq!(create(409, Some(&labels(ours))).await.unwrap(), Created::Done);
        assert_eq!(create(409, Some(&labels(others))).await.unwrap(), Created::Taken);
        assert_eq!(create(409, None).await.unwrap(), Created::Taken);
        let away = create(500, Some(&labels(ours))).await.unwrap_err();
        assert_eq!((away.id, away.kind), (IdentityId(4711), StoreErrorKind::Unavailable));
        let kind = async |code| create(code, Some(&labels(ours))).await.unwrap_err().kind;
        assert_eq!(kind(403).await, StoreErrorKind::Forbidden, "it may be permitted later");
        assert_eq!(kind(422).await, StoreErrorKind::Permanent);
    }
}
