// SPDX-License-Identifier: Apache-2.0
//! Clients that come back to the backend they have been to.

use crate::route::HeldBy;
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

/// What the client was given, if it brings it.
pub(super) fn token(held_by: &HeldBy, headers: &HeaderMap) -> Option<u64> {
    let text = match held_by {
        HeldBy::Header(name) => headers.get(name)?.to_str().ok()?,
        HeldBy::Cookie { name, .. } => {
            let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| key == name)?.1
        }
    };
    u64::from_str_radix(text, 16).ok()
}

/// Gives the client what it is to come back with.
pub(super) fn give(held_by: &HeldBy, token: u64, secure: bool, headers: &mut HeaderMap) {
    match held_by {
        HeldBy::Header(name) => drop(HeaderValue::from_str(&format!("{token:016x}")).map(|v| headers.insert(name, v))),
        HeldBy::Cookie { name, lifetime } => {
            let age = lifetime.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
            let secure = if secure { "; Secure" } else { "" };
            let cookie = format!("{name}={token:016x}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
            drop(HeaderValue::from_str(&cookie).map(|cookie| headers.append(SET_COOKIE, cookie)));
        }
    }
}
