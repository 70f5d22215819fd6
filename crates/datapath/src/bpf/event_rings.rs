// SPDX-License-Identifier: Apache-2.0
//! The rings of events. One that all processors share costs each event the time to fetch what another processor has written, so each
//! has its own, up to a number of them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use abi::maps::Events;
use abi::{MapDef, MapKind};
use aya::maps::{Map, MapData, MapError, RingBuf};

use super::Pinned;
use super::map::{KernelMap, possible_processors};
use super::pins::failed;
use crate::map::raw::{RawMap, bytes_of};
use crate::{Error, Kernel, MapSpec, Result, sys};

/// Processors beyond that many share the rings of the first ones: a ring has to hold what one processor tells until the reader comes.
const MOST: usize = 8;

/// No ring is shorter, in bytes: at 100,000 events a second it has room for 16 ms.
const SHORTEST: u32 = 256 << 10;

/// The one ring of all processors that version 1 was.
const EVENTS_1: MapSpec = MapSpec { version: 1, kind: MapKind::RingBuf, ..MapSpec::of::<Events>() };

/// How many rings there are for so many processors, and how long each is if all together are to take `bytes`: a power of two, as the
/// kernel wants it.
fn divide(processors: usize, bytes: u32) -> (usize, u32) {
    let rings = processors.clamp(1, MOST);
    (rings, (bytes >> rings.next_power_of_two().ilog2()).max(SHORTEST))
}

/// Makes the rings, and the array that leads each processor to its own.
pub(super) fn create(spec: &MapSpec) -> Result<KernelMap> {
    let array = create_array(spec, possible_processors());
    let array = array.map_err(|source| Error::Map { map: spec.name, operation: "create", source })?;
    KernelMap::adopt(array, spec, Path::new(spec.name))
}

fn create_array(spec: &MapSpec, processors: usize) -> io::Result<OwnedFd> {
    let (count, bytes) = divide(processors, spec.capacity);
    let ring = MapSpec { kind: MapKind::RingBuf, ..*spec };
    let rings = (0..count).map(|_| sys::create::map_create(&ring, bytes, false));
    let rings = rings.collect::<io::Result<Vec<_>>>()?;
    let processors = u32::try_from(processors).unwrap_or(u32::MAX);
    let like = rings.first().ok_or(io::ErrorKind::InvalidInput)?;
    let array = sys::create::map_create_of(spec, processors, like.as_fd())?;
    for (processor, ring) in (0..processors).zip(rings.iter().cycle()) {
        sys::map_update(array.as_fd(), bytes_of(&processor), bytes_of(&ring.as_raw_fd()))?;
    }
    Ok(array)
}

/// How long each ring is.
pub(crate) fn length(array: &dyn RawMap) -> Result<u32> {
    let mut shortest = Events::CAPACITY;
    for ring in open(array)? {
        shortest = shortest.min(ring.info().map_err(unreadable)?.max_entries());
    }
    Ok(shortest)
}

/// The rings that are pinned. While an older build's ring is there, its programs may tell something in it,
/// and may have told what nobody has read.
pub(crate) fn pinned(kernel: &Pinned) -> Result<Vec<RingBuf<MapData>>> {
    // Says by name when nothing is pinned, or by another build.
    let mut maps = open(&*kernel.open(MapSpec::of::<Events>())?)?;
    let older = kernel.pins().map(&EVENTS_1);
    if let Some(ring) = sys::open_pin(&older).map_err(|source| failed("open", &older, source))? {
        maps.push(MapData::from_fd(ring).map_err(unreadable)?);
    }
    maps.into_iter().map(|map| RingBuf::try_from(Map::RingBuf(map)).map_err(unreadable)).collect()
}

/// Opens each ring once.
fn open(array: &dyn RawMap) -> Result<Vec<MapData>> {
    let mut ids = BTreeSet::new();
    for processor in 0..array.capacity() {
        let mut id = [0; size_of::<u32>()];
        let failed = |source| Error::Map { map: Events::NAME, operation: "lookup", source };
        if array.lookup(bytes_of(&processor), &mut id).map_err(failed)? {
            ids.insert(u32::from_ne_bytes(id));
        }
    }
    ids.into_iter().map(|id| MapData::from_id(id).map_err(unreadable)).collect()
}

fn unreadable(source: MapError) -> Error {
    Error::Events { source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::{SHORTEST, divide};

    #[test]
    fn rings_share_the_memory_of_one_until_they_would_be_too_short() {
        const ALL: u32 = 1 << 20;
        assert_eq!(divide(1, ALL), (1, ALL));
        assert_eq!(divide(2, ALL), (2, ALL / 2));
        assert_eq!(divide(3, ALL), (3, ALL / 4));
        assert_eq!(divide(8, ALL), (8, SHORTEST));
        assert_eq!(divide(400, ALL), (8, SHORTEST));
    }
}
