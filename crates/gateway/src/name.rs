// SPDX-License-Identifier: Apache-2.0
//! How objects are named, and which kinds of them there are.

use k8s::kube::api::ObjectMeta;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Namespace and name of an object. The namespace is empty if its kind has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// From namespace and name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// An object that one in `namespace` refers to.
    pub(crate) fn referred(namespace: &Arc<str>, other: Option<&str>, name: &str) -> Self {
        Self { namespace: other.map_or_else(|| Arc::clone(namespace), Arc::from), name: name.into() }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Option<Self> {
        Some(Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref()?))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A text that is too long is cut, and ends in a hash of all of it.
pub(crate) fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let hash = format!("{:010x}", hasher.finish() & 0xff_ffff_ffff);
    let head: String = text.chars().take(longest - 1 - hash.len()).collect();
    format!("{}-{hash}", head.trim_end_matches(['-', '.']))
}

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
    /// TLSRoute.
    Tls,
    /// TCPRoute.
    Tcp,
    /// UDPRoute.
    Udp,
    /// CiliumEnvoyConfig: a virtual host of its.
    EnvoyConfig,
    /// CiliumClusterwideEnvoyConfig: a virtual host of its.
    ClusterwideEnvoyConfig,
}

impl RouteKind {
    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
            Self::EnvoyConfig => "CiliumEnvoyConfig",
            Self::ClusterwideEnvoyConfig => "CiliumClusterwideEnvoyConfig",
        }
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind and name of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteName {
    /// Kind.
    pub kind: RouteKind,
    /// Namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A kind of what routes attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParentKind {
    /// Gateway.
    Gateway,
    /// ListenerSet, or XListenerSet.
    ListenerSet,
    /// Service: the route is for traffic between pods.
    Service,
}

/// Kind and name of what routes attach to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentName {
    /// Kind.
    pub kind: ParentKind,
    /// Namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for ParentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ParentKind::Gateway => "Gateway",
            ParentKind::ListenerSet => "ListenerSet",
            ParentKind::Service => "Service",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl ParentName {
    pub(crate) fn gateway(name: &ObjectName) -> Self {
        Self { kind: ParentKind::Gateway, name: name.clone() }
    }

    pub(crate) fn listener_set(name: &ObjectName) -> Self {
        Self { kind: ParentKind::ListenerSet, name: name.clone() }
    }

    pub(crate) fn service(name: &ObjectName) -> Self {
        Self { kind: ParentKind::Service, name: name.clone() }
    }
}
