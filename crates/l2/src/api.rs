// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/l2/announcements`: what this node answers for on its links.

use crate::Announcement;
use axum::routing::get;
use axum::{Json, Router};
use rest::AnnouncedAddress;
use statedb::Reader;

pub(crate) fn routes(announcements: Reader<Announcement>) -> Router {
    let render = |row: &Announcement| AnnouncedAddress {
        address: row.address.to_string(),
        device: row.device.clone(),
        service: row.service.to_string(),
    };
    let list = move || async move { Json(announcements.snapshot().iter().map(|row| render(row)).collect::<Vec<_>>()) };
    Router::new().route("/v1/l2/announcements", get(list))
}
