// SPDX-License-Identifier: Apache-2.0
//! Clients that come back to the backend they have been to.

use crate::route::{Held, HeldBy};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use std::net::SocketAddr;

/// Where the client has been, if it brings what it was given.
pub(super) fn backend(held: &Held, headers: &HeaderMap) -> Option<SocketAddr> {
    let text = match &held.by {
        HeldBy::Header(name) => headers.get(name)?.to_str().ok()?,
        HeldBy::Cookie { name, .. } => {
            let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| key == name)?.1
        }
    };
    held.tokens.open(text)
}

/// Gives the client what it is to come back with.
pub(super) fn give(held: &Held, backend: SocketAddr, secure: bool, headers: &mut HeaderMap) {
    let token = held.tokens.seal(backend);
    match &held.by {
        HeldBy::Header(name) => drop(HeaderValue::from_str(&token).map(|value| headers.insert(name, value))),
        HeldBy::Cookie { name, lifetime } => {
            let age = lifetime.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
            let secure = if secure { "; Secure" } else { "" };
            let cookie = format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
            drop(HeaderValue::from_str(&cookie).map(|cookie| headers.append(SET_COOKIE, cookie)));
        }
    }
}
