// SPDX-License-Identifier: Apache-2.0
//! Hubble's API as Rust types, generated from `proto/`, and its JSON form.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, SerializeOptions};
use std::sync::LazyLock;

/// What happened to a packet.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod flow {
    tonic::include_proto!("flow");
}

/// Reading flows.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod observer {
    tonic::include_proto!("observer");
}

/// Which nodes serve flows.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod peer {
    tonic::include_proto!("peer");
}

/// What a relay tells about its nodes.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod relay {
    tonic::include_proto!("relay");
}

/// Collectors of OpenTelemetry that take logs.
#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod opentelemetry {
    tonic::include_proto!("opentelemetry.proto.collector.logs.v1");
}

/// The definitions of Hubble's services and messages.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the build script made these bytes")]
    DescriptorPool::decode(DESCRIPTORS).expect("descriptors of the protocol")
});

/// A message could not be read from, or written as, JSON.
#[derive(Debug, thiserror::Error)]
#[error("{message}: {source}")]
pub struct JsonError {
    message: String,
    source: serde_json::Error,
}

/// The descriptors of all messages.
pub(crate) fn pool() -> &'static DescriptorPool {
    &POOL
}

/// Nanoseconds since 1970 as the protocol has them.
#[expect(clippy::cast_possible_truncation, reason = "less than a second in nanoseconds")]
#[must_use]
pub fn timestamp(nanos: i64) -> prost_types::Timestamp {
    const SECOND: i64 = 1_000_000_000;
    prost_types::Timestamp { seconds: nanos.div_euclid(SECOND), nanos: nanos.rem_euclid(SECOND) as i32 }
}

/// A time of the protocol in nanoseconds since 1970; one that is out of bounds is the nearest within.
#[must_use]
pub fn nanos(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
}

/// One message as one line of JSON: names as in the protocol's definition, enumerations by name, default values left out.
///
/// # Errors
///
/// When a message holds what JSON cannot: a time outside of the years 1 to 9999.
pub fn to_json<M: Message + Name>(message: &M) -> Result<String, JsonError> {
    let name = M::full_name();
    let fail = |source| JsonError { message: name.clone(), source };
    let mut out = Vec::new();
    serialize(message, &mut serde_json::Serializer::new(&mut out)).map_err(fail)?;
    String::from_utf8(out).map_err(|e| fail(serde::ser::Error::custom(e)))
}

/// One message as a value of JSON, in the form of [`to_json`].
///
/// # Errors
///
/// As [`to_json`].
pub(crate) fn to_value<M: Message + Name>(message: &M) -> Result<serde_json::Value, JsonError> {
    serialize(message, serde_json::value::Serializer).map_err(|source| JsonError { message: M::full_name(), source })
}

fn serialize<M: Message + Name, S>(message: &M, serializer: S) -> Result<S::Ok, serde_json::Error>
where
    S: serde::Serializer<Error = serde_json::Error>,
{
    let mut dynamic = dynamic(&M::full_name())?;
    dynamic.merge(message.encode_to_vec().as_slice()).map_err(serde::ser::Error::custom)?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    dynamic.serialize_with_options(serializer, &options)
}

/// Reads a message from JSON; an unknown field is an error.
///
/// # Errors
///
/// When the text is not JSON or not this message.
pub fn from_json<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    let name = M::full_name();
    let fail = |source| JsonError { message: name.clone(), source };
    let descriptor = dynamic(&name).map_err(fail)?.descriptor();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let dynamic = DynamicMessage::deserialize(descriptor, &mut deserializer).map_err(fail)?;
    deserializer.end().map_err(fail)?;
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|e| fail(serde::de::Error::custom(e)))
}

fn dynamic(name: &str) -> Result<DynamicMessage, serde_json::Error> {
    let descriptor = POOL.get_message_by_name(name);
    descriptor.map(DynamicMessage::new).ok_or_else(|| serde::ser::Error::custom("is not part of the protocol"))
}
