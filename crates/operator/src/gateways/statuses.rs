// SPDX-License-Identifier: Apache-2.0
//! Writes what is to be said of objects, each in the very version in which something else is said.

use crate::controllers::is_stale;
use gateway::{Correction, ObjectName, RouteKind, RouteName, Status, Subject};
use k8s::Client;
use k8s::gateway::{
    BackendTlsPolicySpec, GatewayClassConfigSpec, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec,
    ListenerSetSpec, MeshSpec, Object, Served, Spec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec,
};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;
use statedb::Target;
use std::collections::BTreeMap;

pub(super) struct Statuses {
    client: Client,
    /// Under which name each kind is served, by the best.
    served: BTreeMap<Served, Served>,
}

impl Statuses {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), served: BTreeMap::new() }
    }

    async fn write<S: Spec>(
        &mut self,
        name: &ObjectName,
        version: &str,
        status: &(impl Serialize + Sync),
    ) -> Result<(), Error> {
        let Some(served) = self.served::<S>().await? else { return Ok(()) };
        let kube = self.client.kube();
        let api: Api<Object<S>> = if name.namespace.is_empty() {
            Api::all_with(kube, &served)
        } else {
            Api::namespaced_with(kube, &name.namespace, &served)
        };
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        match api.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // Whoever changed it has brought about another look at it; and the kind may be served by another name now.
            Err(error) if is_stale(&error) => {
                self.served.retain(|_, known| *known != served);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn served<S: Spec>(&mut self) -> Result<Option<Served>, Error> {
        let Some(best) = S::SERVED.first() else { return Ok(None) };
        if let Some(known) = self.served.get(best) {
            return Ok(Some(*known));
        }
        let found = self.client.served::<S>().await?;
        if let Some(served) = found {
            self.served.insert(*best, served);
        }
        Ok(found)
    }
}

impl Target<Correction> for Statuses {
    type Error = Error;

    async fn update(&mut self, row: &Correction) -> Result<(), Error> {
        let Some(status) = row.status(&Timestamp::now().to_string()) else { return Ok(()) };
        let version = &row.version;
        match (&row.report.subject, &status) {
            (Subject::Class(name), Status::Class(status)) => {
                self.write::<GatewayClassSpec>(name, version, status).await
            }
            (Subject::Mesh(name), Status::Mesh(status)) => self.write::<MeshSpec>(name, version, status).await,
            (Subject::Gateway(name), Status::Gateway(status)) => self.write::<GatewaySpec>(name, version, status).await,
            (Subject::ListenerSet(name), Status::ListenerSet(status)) => {
                self.write::<ListenerSetSpec>(name, version, status).await
            }
            (Subject::Policy(name), Status::Policy(status)) => {
                self.write::<BackendTlsPolicySpec>(name, version, status).await
            }
            (Subject::ClassConfig(name), Status::ClassConfig(status)) => {
                self.write::<GatewayClassConfigSpec>(name, version, status).await
            }
            (Subject::Route(RouteName { kind, name }), Status::Route(status)) => match kind {
                RouteKind::Http => self.write::<HttpRouteSpec>(name, version, status).await,
                RouteKind::Grpc => self.write::<GrpcRouteSpec>(name, version, status).await,
                RouteKind::Tls => self.write::<TlsRouteSpec>(name, version, status).await,
                RouteKind::Tcp => self.write::<TcpRouteSpec>(name, version, status).await,
                RouteKind::Udp => self.write::<UdpRouteSpec>(name, version, status).await,
                // They have none.
                RouteKind::EnvoyConfig | RouteKind::ClusterwideEnvoyConfig => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn is_permanent(error: &Error) -> bool {
        k8s::is_permanent(error)
    }
}
