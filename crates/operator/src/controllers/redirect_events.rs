// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of local redirect policies why one of them redirects nothing, by an event: these objects have no conditions.

use super::pending::Pending;
use super::{Controller, Failures, REPORTER};
use k8s::kube::Error;
use k8s::{Client, Events};
use services::JudgedRedirect;
use statedb::Reader;

pub(super) struct RedirectEvents {
    events: Events,
    pending: Pending<JudgedRedirect>,
}

impl RedirectEvents {
    pub(super) fn new(client: &Client, policies: &Reader<JudgedRedirect>) -> Self {
        Self { events: Events::new(client, REPORTER), pending: Pending::new(policies) }
    }
}

impl Controller for RedirectEvents {
    const NAME: &'static str = "redirect-events";

    async fn due(&mut self) {
        self.pending.more().await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for policy in self.pending.rows() {
            match self.events.publish(&policy.warning).await {
                // What the API server refuses now, it refuses again.
                Ok(()) | Err(Error::Api(_)) => self.pending.done(&policy),
                Err(error) => failures.add(format_args!("CiliumLocalRedirectPolicy {}", policy.name), &error),
            }
        }
        failures.into_result()
    }
}
