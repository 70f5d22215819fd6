// SPDX-License-Identifier: Apache-2.0
//! The name in a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3), read without touching it.

use std::borrow::Cow;

/// Longest hello, with its records. Post-quantum key shares make for two kilobytes.
pub(crate) const LONGEST: usize = 64 << 10;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Longest fragment of a record (RFC 8446, 5.1), and what older ones may add.
const LONGEST_FRAGMENT: usize = (1 << 14) + 256;

/// What is not a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The name in the hello that the bytes begin with, in lower case and without a final dot; empty if there is none in it. Nothing if more
/// bytes are needed.
pub(crate) fn server_name(bytes: &[u8]) -> Option<Result<String, Malformed>> {
    match handshake(bytes) {
        Ok(Some(hello)) => Some(name(&hello)),
        Ok(None) => None,
        Err(error) => Some(Err(error)),
    }
}

/// The hello's own bytes, out of as many records as it takes.
fn handshake(mut bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let mut all: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let mut record = Reader(bytes);
        match record.byte() {
            Some(HANDSHAKE) => {}
            Some(_) => return Err(Malformed),
            None => return Ok(None),
        }
        let major = record.byte();
        if major.is_some_and(|major| major != 3) {
            return Err(Malformed);
        }
        let (Some(_), Some(length)) = (record.byte(), record.number()) else { return Ok(None) };
        if length == 0 || usize::from(length) > LONGEST_FRAGMENT {
            return Err(Malformed);
        }
        let available = record.0.len().min(length.into());
        let fragment = record.0.get(..available).ok_or(Malformed)?;
        if all.is_empty() {
            all = Cow::Borrowed(fragment)
        } else {
            all.to_mut().extend_from_slice(fragment)
        }
        if let Some(complete) = complete(&all)? {
            all = match all {
                Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(4..complete).ok_or(Malformed)?),
                Cow::Owned(bytes) => Cow::Owned(bytes.get(4..complete).ok_or(Malformed)?.to_vec()),
            };
            return Ok(Some(all));
        }
        bytes = match record.0.get(usize::from(length)..) {
            Some(rest) => rest,
            None => return Ok(None),
        };
    }
}

/// Where the hello ends, if all of it is there.
fn complete(handshake: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut reader = Reader(handshake);
    match reader.byte() {
        Some(CLIENT_HELLO) => {}
        Some(_) => return Err(Malformed),
        None => return Ok(None),
    }
    let (Some(high), Some(low)) = (reader.byte(), reader.number()) else { return Ok(None) };
    let length = usize::from(high) << 16 | usize::from(low);
    if length > LONGEST {
        return Err(Malformed);
    }
    Ok((reader.0.len() >= length).then_some(4 + length))
}

fn name(hello: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader(hello);
    reader.take(2 + 32).ok_or(Malformed)?;
    let session = reader.byte().ok_or(Malformed)?;
    reader.take(session.into()).ok_or(Malformed)?;
    reader.vector().ok_or(Malformed)?;
    let compressions = reader.byte().ok_or(Malformed)?;
    reader.take(compressions.into()).ok_or(Malformed)?;
    if reader.0.is_empty() {
        return Ok(String::new());
    }
    let mut extensions = Reader(reader.vector().ok_or(Malformed)?);
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number().ok_or(Malformed)?;
        let value = extensions.vector().ok_or(Malformed)?;
        // Of two, a backend behind may read the other.
        if kind == SERVER_NAME && name.replace(host_name(value)?).is_some() {
            return Err(Malformed);
        }
    }
    Ok(name.unwrap_or_default())
}

fn host_name(extension: &[u8]) -> Result<String, Malformed> {
    let mut names = Reader(Reader(extension).vector().ok_or(Malformed)?);
    let mut host = None;
    while !names.0.is_empty() {
        let kind = names.byte().ok_or(Malformed)?;
        let name = names.vector().ok_or(Malformed)?;
        if kind != HOST_NAME {
            continue;
        }
        let text = std::str::from_utf8(name).map_err(|_| Malformed)?;
        let parsed = text.trim_end_matches('.').parse::<l7::HostMatch>();
        let Ok(l7::HostMatch::Exact(name)) = parsed else { return Err(Malformed) };
        if host.replace(name.to_string()).is_some() {
            return Err(Malformed);
        }
    }
    Ok(host.unwrap_or_default())
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    /// Bytes behind their length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}
