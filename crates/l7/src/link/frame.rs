// SPDX-License-Identifier: Apache-2.0
//! Frames: a length and JSON.

use serde::{Serialize, de::DeserializeOwned};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame. An object that is longer cannot be sent; the largest are certificates, lists of endpoints and listeners.
pub(super) const LONGEST: u32 = 64 << 20;

/// Why agent and proxy do not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket.
    #[error("the other side of the socket is gone")]
    Io(#[from] io::Error),
    /// Length of a frame.
    #[error("a frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// What it has.
        length: usize,
        /// What it may have.
        limit: u32,
    },
    /// Contents of a frame.
    #[error("a frame that cannot be read")]
    Json(#[from] serde_json::Error),
    /// A frame that may not come here.
    #[error("a frame out of turn")]
    OutOfTurn,
    /// The other build is too old or too new.
    #[error("the other side speaks versions {oldest} to {newest} of the protocol, of which this build speaks none")]
    NoCommonVersion {
        /// Its oldest.
        oldest: u32,
        /// Its newest.
        newest: u32,
    },
    /// The proxy does not answer.
    #[error("the proxy has not put an update into force in time")]
    NoStatus,
}

pub(super) async fn write<T: Serialize>(writer: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<(), LinkError> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= LONGEST);
    writer.write_u32(length.ok_or(LinkError::TooLong { length: bytes.len(), limit: LONGEST })?).await?;
    Ok(writer.write_all(&bytes).await?)
}

/// Not to be given up half-way: what has been read of a frame would be lost.
pub(super) async fn read<T: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> Result<T, LinkError> {
    read_up_to(reader, LONGEST).await
}

/// As [`read`], for frames that are shorter.
pub(super) async fn read_up_to<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
    longest: u32,
) -> Result<T, LinkError> {
    let length = reader.read_u32().await?;
    if length > longest {
        return Err(LinkError::TooLong { length: length as usize, limit: longest });
    }
    // The length is only believed as far as bytes come.
    let mut bytes = Vec::new();
    reader.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if bytes.len() < length as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(serde_json::from_slice(&bytes)?)
}
