// SPDX-License-Identifier: Apache-2.0
//! ReferenceGrant, BackendTLSPolicy, and CiliumGatewayClassConfig.

use super::object::{Served, Spec};
use super::{ObjectReference, PolicyStatus};
use serde::{Deserialize, Serialize};

/// Lets objects of other namespaces refer to some of this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    pub to: Vec<GrantTo>,
}

impl Spec for ReferenceGrantSpec {
    type Status = ();
    const SERVED: &'static [Served] = &[
        Served::stable("v1", "ReferenceGrant", "referencegrants"),
        Served::stable("v1beta1", "ReferenceGrant", "referencegrants"),
    ];
}

/// Who may refer: objects of a kind in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantFrom {
    /// API group.
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

/// What may be referred to: objects of a kind, or one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantTo {
    /// API group.
    pub group: String,
    pub kind: String,
    /// Name; any if unset.
    pub name: Option<String>,
}

/// TLS between a Gateway and the backends of Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsPolicySpec {
    /// Services of this namespace, or ports of them by name.
    pub target_refs: Vec<ObjectReference>,
    /// How the backend's certificate is judged.
    pub validation: BackendTlsValidation,
}

impl Spec for BackendTlsPolicySpec {
    type Status = PolicyStatus;
    const SERVED: &'static [Served] = &[
        Served::stable("v1", "BackendTLSPolicy", "backendtlspolicies"),
        Served::stable("v1alpha3", "BackendTLSPolicy", "backendtlspolicies"),
    ];
}

/// How a backend's certificate is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// ConfigMaps of this namespace with the authorities' certificates.
    #[serde(rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// `System` for the authorities that the proxy's system trusts.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    /// Name that is asked for, and that the certificate must be for unless `subject_alt_names` are given.
    pub hostname: String,
    /// Names of which the certificate must have one.
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A name in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectAltName {
    /// `Hostname` or `URI`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `Hostname`.
    pub hostname: Option<String>,
    /// With `URI`.
    pub uri: Option<String>,
}
