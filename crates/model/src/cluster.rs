// SPDX-License-Identifier: Apache-2.0
//! Clusters of a mesh, and the range of identity numbers of each, as documented for Cilium's Cluster Mesh.

use crate::IdentityId;
use crate::config::{Accepts, Choice, Form, Value};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A cluster's id in a mesh, at most 511; 0 for a cluster that is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u16);

impl ClusterId {
    /// The highest id in any mesh.
    pub const MAX: Self = Self(511);

    /// The id with this number, unless it is too high for any mesh.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a cluster id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a number from 0 to 511")]
pub struct ParseClusterIdError;

impl FromStr for ClusterId {
    type Err = ParseClusterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Self::new).ok_or(ParseClusterIdError)
    }
}

/// How many clusters a mesh may have. It decides how the 24 bits of an identity's number are divided between the cluster and
/// the identity in it, so all clusters of a mesh have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MeshSize {
    /// 255, with 65,535 numbers each.
    #[default]
    Clusters255,
    /// 511, with 32,767 numbers each.
    Clusters511,
}

impl MeshSize {
    const BITS: u32 = 24;
    /// The numbers below are reserved.
    const FIRST: u32 = 256;

    /// Bits of an identity's number below those of the cluster id.
    const fn local_bits(self) -> u32 {
        match self {
            Self::Clusters255 => Self::BITS - 8,
            Self::Clusters511 => Self::BITS - 9,
        }
    }

    /// A cluster of such a mesh, unless its id is too high for the mesh.
    #[must_use]
    pub const fn cluster(self, id: ClusterId) -> Option<Cluster> {
        let first = (id.0 as u32) << self.local_bits();
        if first >> Self::BITS == 0 { Some(Cluster { id, mesh: self }) } else { None }
    }

    /// The cluster an identity belongs to; none for node-local identities.
    #[must_use]
    pub fn cluster_of(self, identity: IdentityId) -> Option<ClusterId> {
        u16::try_from(identity.0 >> self.local_bits()).ok().filter(|_| identity.0 >> Self::BITS == 0).map(ClusterId)
    }
}

/// A cluster in its mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    id: ClusterId,
    mesh: MeshSize,
}

impl Cluster {
    #[must_use]
    pub const fn id(self) -> ClusterId {
        self.id
    }

    /// The numbers of its identities.
    #[must_use]
    pub const fn identities(self) -> RangeInclusive<u32> {
        let bits = self.mesh.local_bits();
        let first = (self.id.0 as u32) << bits;
        first + MeshSize::FIRST..=first + (1 << bits) - 1
    }
}

impl Value for ClusterId {
    fn form() -> Form {
        Form::new("a number from 0 to 511", Accepts::Whole(0, 511))
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Choice for MeshSize {
    const WANT: &'static str = "255 or 511";
    const NAMES: &'static [(&'static str, Self)] = &[("255", Self::Clusters255), ("511", Self::Clusters511)];
}

#[cfg(test)]
mod tests {
    use super::*;
    use MeshSize::{Clusters255, Clusters511};

    fn cluster(number: u16) -> ClusterId {
        ClusterId::new(number).unwrap()
    }

    #[test]
    fn a_number_is_at_most_511() {
        assert_eq!("511".parse(), Ok(ClusterId::MAX));
        for bad in ["512", "-1", "65536", "", "a"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad}");
        }
        assert_eq!((ClusterId::MAX.to_string().as_str(), <ClusterId as Value>::parse("7")), ("511", Some(cluster(7))));
    }

    #[test]
    fn each_cluster_has_its_own_numbers() {
        assert_eq!(Cluster::default().identities(), 256..=65535);
        let numbers = |mesh: MeshSize, id| mesh.cluster(cluster(id)).map(Cluster::identities);
        assert_eq!(numbers(Clusters255, 2), Some(131_328..=196_607));
        assert_eq!(numbers(Clusters255, 255), Some(0xff_0100..=0xff_ffff));
        assert_eq!(numbers(Clusters255, 256), None);
        assert_eq!(numbers(Clusters511, 0), Some(256..=32767));
        assert_eq!(numbers(Clusters511, 2), Some(65_792..=98_303));
        assert_eq!(numbers(Clusters511, 511), Some(0xff_8100..=0xff_ffff));
    }

    #[test]
    fn numbers_of_two_clusters_do_not_overlap_and_tell_their_cluster() {
        for (mesh, most) in [(Clusters255, 255), (Clusters511, 511)] {
            let mut last = 0;
            for id in (0..=most).map(cluster) {
                let numbers = mesh.cluster(id).unwrap().identities();
                assert!(*numbers.start() > last);
                last = *numbers.end();
                let clusters = [*numbers.start(), last].map(|number| mesh.cluster_of(IdentityId(number)));
                assert_eq!(clusters, [Some(id); 2]);
            }
            assert_eq!(last >> MeshSize::BITS, 0, "a tunnel's header has 24 bits");
            assert_eq!(mesh.cluster_of(IdentityId(1 << MeshSize::BITS)), None);
        }
    }
}
