// SPDX-License-Identifier: Apache-2.0
//! What all kinds have in common, and under which names the API server may serve each.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Debug;

/// A group, version and kind by which objects are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Served {
    /// API group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Kind as it stands in paths.
    pub plural: &'static str,
}

impl Served {
    pub(super) const fn stable(version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { group: super::GROUP, version, kind, plural }
    }
}

/// The specification of a kind.
pub trait Spec: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What controllers say of its objects.
    type Status: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The names that these types can read it by, the best first.
    const SERVED: &'static [Served];
}

/// The best version of a kind that the cluster serves, if any.
pub(crate) async fn served<S: Spec>(client: &kube::Client) -> Result<Option<Served>, kube::Error> {
    for served in S::SERVED {
        match client.list_api_group_resources(&format!("{}/{}", served.group, served.version)).await {
            Ok(list) if list.resources.iter().any(|resource| resource.name == served.plural) => {
                return Ok(Some(*served));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// An object of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(bound = "S: Spec")]
pub struct Object<S: Spec> {
    /// Name, generation and so on.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: S,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<S::Status>,
}

impl<S: Spec> kube::Resource for Object<S> {
    type DynamicType = Served;
    type Scope = DynamicResourceScope;

    fn kind(served: &Served) -> Cow<'_, str> {
        served.kind.into()
    }

    fn group(served: &Served) -> Cow<'_, str> {
        served.group.into()
    }

    fn version(served: &Served) -> Cow<'_, str> {
        served.version.into()
    }

    fn plural(served: &Served) -> Cow<'_, str> {
        served.plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
