// SPDX-License-Identifier: Apache-2.0
//! How a custom resource is declared.

pub(super) use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, Serializer};
use std::fmt::Debug;
use std::marker::PhantomData;

/// The `apiVersion` of a resource, which is in its type; occupies nothing.
pub struct ApiVersion<K>(PhantomData<fn() -> K>);

/// The `kind` of a resource, which is in its type; occupies nothing.
pub struct Kind<K>(PhantomData<fn() -> K>);

macro_rules! type_tag {
    ($tag:ident, $text:ident) => {
        impl<K> Clone for $tag<K> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<K> Copy for $tag<K> {}
        impl<K> Default for $tag<K> {
            fn default() -> Self {
                Self(PhantomData)
            }
        }
        impl<K> PartialEq for $tag<K> {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }
        impl<K: kube::Resource<DynamicType = ()>> Debug for $tag<K> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&K::$text(&()))
            }
        }
        impl<K: kube::Resource<DynamicType = ()>> Serialize for $tag<K> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&K::$text(&()))
            }
        }
    };
}

type_tag!(ApiVersion, api_version);
type_tag!(Kind, kind);

/// Declares a custom resource: its type, and what its CustomResourceDefinition says besides.
macro_rules! resource {
    (
        $(#[$meta:meta])*
        $name:ident, $scope:ty, $plural:literal, { $($fact:ident: $value:expr,)* }
        { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// `apiVersion`, always the type's.
            #[serde(skip_deserializing)]
            #[schemars(skip)]
            pub api_version: $crate::cilium::ApiVersion<$name>,
            /// `kind`, always the type's.
            #[serde(skip_deserializing)]
            #[schemars(skip)]
            pub kind: $crate::cilium::Kind<$name>,
            /// Name, labels and so on.
            #[serde(default)]
            #[schemars(skip)]
            pub metadata: $crate::cilium::resource::ObjectMeta,
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $crate::crd::Defined for $name {
            const FACTS: $crate::crd::Facts = $crate::crd::Facts { $($fact: $value,)* ..$crate::crd::Facts::NONE };
        }

        impl $name {
            /// An empty object of that name.
            #[must_use]
            pub fn named(name: &str) -> Self {
                let metadata = $crate::cilium::resource::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
                Self { metadata, ..Self::default() }
            }
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $crate::cilium::GROUP.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                <Self as $crate::crd::Defined>::FACTS.version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &$crate::cilium::resource::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut $crate::cilium::resource::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use resource;
