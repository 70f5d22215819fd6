// SPDX-License-Identifier: Apache-2.0
//! `/ipam`: addresses for pods.

use super::{Refusal, Shared, addressing, local_node};
use crate::addresses::Families;
use crate::rest::{IpamAddressResponse, IpamResponse};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use std::net::IpAddr;

/// The query parameters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    family: String,
    owner: String,
    expiration: bool,
}

pub(super) async fn allocate(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<impl IntoResponse, Refusal> {
    let config = shared.manager.config();
    let families = match wanted.family.to_ascii_lowercase().as_str() {
        "" => Families { ipv4: config.ipv4, ipv6: config.ipv6 },
        "ipv4" => Families { ipv4: true, ipv6: false },
        "ipv6" => Families { ipv4: false, ipv6: true },
        other => return Err(bad(format!("family: {other:?} is neither ipv4 nor ipv6"))),
    };
    if wanted.owner.is_empty() {
        return Err(bad("owner: is missing".into()));
    }
    let node = local_node(&shared)?;
    let leased = wanted.expiration || headers.get("expiration").is_some_and(|v| v == "true");
    let pair = shared.manager.allocate(&wanted.owner, families, leased)?;
    let host_addressing = addressing(&shared, &node);
    let detail = |ip: Option<IpAddr>, gateway, uuid: &Option<String>| {
        ip.map(|ip| IpamAddressResponse { ip, gateway, expiration_uuid: uuid.clone() })
    };
    let ipv4 = detail(pair.ipv4.map(IpAddr::V4), host_addressing.ipv4.ip, &pair.ipv4_expiration_uuid);
    let ipv6 = detail(pair.ipv6.map(IpAddr::V6), host_addressing.ipv6.ip, &pair.ipv6_expiration_uuid);
    Ok((StatusCode::CREATED, Json(IpamResponse { address: pair, ipv4, ipv6, host_addressing })))
}

pub(super) async fn claim(
    State(shared): State<Shared>,
    Path(ip): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<(), Refusal> {
    Ok(shared.manager.claim(&wanted.owner, parse(&ip)?)?)
}

/// Without an owner only a leased address is released, never one in use.
pub(super) async fn release(
    State(shared): State<Shared>,
    Path(ip): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<(), Refusal> {
    let owner = Some(wanted.owner.as_str()).filter(|owner| !owner.is_empty());
    Ok(shared.manager.release(owner, parse(&ip)?)?)
}

fn parse(ip: &str) -> Result<IpAddr, Refusal> {
    ip.parse().map_err(|_| bad(format!("{ip:?} is not an address")))
}

fn bad(why: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why)
}
