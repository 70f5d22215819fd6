// SPDX-License-Identifier: Apache-2.0
//! Field masks: a client that wants five fields of a flow gets five fields.

use crate::filter::shorten;
use crate::proto::{self, flow::Flow};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use std::collections::BTreeMap;

/// Which fields of a flow to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask(BTreeMap<u32, Option<Mask>>);

/// A path of a mask is not a field of a flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field_mask: {:?}: a {message} has no field {:?}", shorten(.path), shorten(.field))]
pub(crate) struct MaskError {
    path: String,
    message: String,
    field: String,
}

impl Mask {
    /// From paths such as `source.identity`; none keeps everything.
    pub(crate) fn compile(paths: &[String]) -> Result<Option<Self>, MaskError> {
        let Some(flow) = flow_descriptor().filter(|_| !paths.is_empty()) else { return Ok(None) };
        let mut mask = Self::default();
        for path in paths {
            mask.add(&flow, path, &path.split('.').collect::<Vec<_>>())?;
        }
        Ok(Some(mask))
    }

    /// Adds the field of the message that `parts`, the end of `path`, leads to.
    fn add(&mut self, message: &MessageDescriptor, path: &str, parts: &[&str]) -> Result<(), MaskError> {
        let Some((part, rest)) = parts.split_first() else { return Ok(()) };
        let (name, field) = (message.name().to_owned(), (*part).to_owned());
        let error = || MaskError { path: path.to_owned(), message: name, field };
        let Some(field) = message.get_field_by_name(part) else { return Err(error()) };
        if rest.is_empty() {
            self.0.insert(field.number(), None);
            return Ok(());
        }
        // Of a list there is no single field.
        let Kind::Message(inner) = field.kind() else { return Err(error()) };
        if field.is_list() {
            return Err(error());
        }
        match self.0.entry(field.number()).or_insert_with(|| Some(Self::default())) {
            Some(mask) => mask.add(&inner, path, rest),
            None => Ok(()),
        }
    }

    /// The flow with only these fields.
    pub(crate) fn apply(&self, flow: Flow) -> Flow {
        let Some(descriptor) = flow_descriptor() else { return flow };
        let mut dynamic = DynamicMessage::new(descriptor);
        if dynamic.merge(flow.encode_to_vec().as_slice()).is_err() {
            return flow;
        }
        self.retain(&mut dynamic);
        Flow::decode(dynamic.encode_to_vec().as_slice()).unwrap_or(flow)
    }

    fn retain(&self, message: &mut DynamicMessage) {
        let present: Vec<_> = message.fields().map(|(field, _)| field).collect();
        for field in present {
            match self.0.get(&field.number()) {
                None => message.clear_field(&field),
                Some(None) => {}
                Some(Some(inner)) => {
                    if let Value::Message(value) = message.get_field_mut(&field) {
                        inner.retain(value);
                    }
                }
            }
        }
    }
}

fn flow_descriptor() -> Option<MessageDescriptor> {
    proto::pool().get_message_by_name(&Flow::full_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{Endpoint, Ip};

    fn flow() -> Flow {
        Flow {
            verdict: 1,
            node_name: "n1".to_owned(),
            ip: Some(Ip { source: "10.0.0.1".to_owned(), ..Ip::default() }),
            source: Some(Endpoint { id: 7, identity: 300, pod_name: "web".to_owned(), ..Endpoint::default() }),
            ..Flow::default()
        }
    }

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|&p| p.to_owned()).collect()
    }

    #[test]
    fn only_the_named_fields_are_kept() {
        let mask = Mask::compile(&paths(&["verdict", "source.identity"])).unwrap().unwrap();
        let source = Some(Endpoint { identity: 300, ..Endpoint::default() });
        assert_eq!(mask.apply(flow()), Flow { verdict: 1, source, ..Flow::default() });
    }

    #[test]
    fn a_whole_field_wins_over_a_part_of_it_in_either_order() {
        for order in [["source", "source.identity"], ["source.identity", "source"]] {
            let mask = Mask::compile(&paths(&order)).unwrap().unwrap();
            assert_eq!(mask.apply(flow()).source, flow().source);
        }
    }

    #[test]
    fn no_path_means_everything_and_an_unknown_one_is_named() {
        assert_eq!(Mask::compile(&[]).unwrap(), None);
        let error = Mask::compile(&paths(&["source.colour"])).unwrap_err();
        assert_eq!(error.to_string(), "field_mask: \"source.colour\": a Endpoint has no field \"colour\"");
        assert!(Mask::compile(&paths(&["verdict.x"])).is_err());
        // Masked, a list would be sent as a whole.
        assert!(Mask::compile(&paths(&["source.workloads.name"])).is_err());
        assert!(Mask::compile(&paths(&["source.workloads"])).is_ok());
    }
}
