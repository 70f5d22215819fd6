// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: Services, EndpointSlices and CiliumLocalRedirectPolicies. Not part of the product.

use crate::{Config, ingest_redirect, ingest_service, ingest_slice, judge_redirect};
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};

/// An object in JSON after a byte that names its kind: what comes of it can be sent to.
pub fn object(data: &[u8]) {
    let config = Config::default();
    match data.split_first() {
        Some((b'v', json)) => {
            if let Ok(object) = serde_json::from_slice::<core::Service>(json)
                && let Ok(Some(service)) = ingest_service(&config, &object)
            {
                assert!(service.ports.iter().all(|port| port.port != 0), "{service:?}");
            }
        }
        Some((b'l', json)) => {
            if let Ok(object) = serde_json::from_slice::<discovery::EndpointSlice>(json)
                && let Some(slice) = ingest_slice(&config, &object)
            {
                assert!(slice.ports.iter().all(|port| port.port != 0), "{slice:?}");
                assert!(slice.endpoints.iter().all(|endpoint| !endpoint.ip.is_unspecified()), "{slice:?}");
            }
        }
        Some((b'R', json)) => {
            if let Ok(object) = serde_json::from_slice(json) {
                let is_faulty = ingest_redirect(&config, &object).is_err();
                assert!(is_faulty || judge_redirect(&config, &object).is_none());
            }
        }
        _ => {}
    }
}
