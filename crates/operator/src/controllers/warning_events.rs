// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of objects that have no conditions what of them is not done, by events.

use super::pending::Pending;
use super::{Controller, Failures, REPORTER};
use gateway::{EnvoyProblems, IngressClosed, IngressProblem};
use k8s::kube::Error;
use k8s::{Client, Events, Warning};
use services::JudgedRedirect;
use statedb::{Reader, Row};

/// A row for an object whose author is to be warned.
pub(super) trait Warned: Row {
    /// Name of the controller.
    const CONTROLLER: &'static str;

    fn warning(&self) -> Warning;

    /// Kind and name.
    fn object(&self) -> String;
}

impl Warned for JudgedRedirect {
    const CONTROLLER: &'static str = "redirect-events";

    fn warning(&self) -> Warning {
        self.warning.clone()
    }

    fn object(&self) -> String {
        format!("CiliumLocalRedirectPolicy {}", self.name)
    }
}

impl Warned for EnvoyProblems {
    const CONTROLLER: &'static str = "envoy-config-events";

    fn warning(&self) -> Warning {
        Self::warning(self)
    }

    fn object(&self) -> String {
        Self::object(self)
    }
}

impl Warned for IngressClosed {
    const CONTROLLER: &'static str = "ingress-events";

    fn warning(&self) -> Warning {
        Self::warning(self)
    }

    fn object(&self) -> String {
        format!("Ingress {}", self.name)
    }
}

impl Warned for IngressProblem {
    const CONTROLLER: &'static str = "ingress-problem-events";

    fn warning(&self) -> Warning {
        Self::warning(self)
    }

    fn object(&self) -> String {
        format!("Ingress {}", self.name)
    }
}

pub(super) struct WarningEvents<R: Warned> {
    events: Events,
    pending: Pending<R>,
}

impl<R: Warned> WarningEvents<R> {
    pub(super) fn new(client: &Client, objects: &Reader<R>) -> Self {
        Self { events: Events::new(client, REPORTER), pending: Pending::new(R::CONTROLLER, objects) }
    }
}

impl<R: Warned> Controller for WarningEvents<R> {
    const NAME: &'static str = R::CONTROLLER;

    async fn due(&mut self) {
        self.pending.more().await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for object in self.pending.rows() {
            let result = match self.events.publish(&object.warning()).await {
                // As in a namespace that is being deleted: the rest does not hang on an event.
                Err(Error::Api(status)) if status.code == 403 => Ok(()),
                result => result,
            };
            if let Err(error) = self.pending.settle(&object, result) {
                failures.add(object.object(), &error);
            }
        }
        failures.into_result()
    }
}
