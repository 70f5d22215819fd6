// SPDX-License-Identifier: Apache-2.0
//! Where a node's pod CIDRs come from.

use std::fmt;
use std::str::FromStr;

/// Key `ipam`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The operator cuts pod CIDRs out of the cluster's pools and writes them to the CiliumNode.
    #[default]
    ClusterPool,
    /// Kubernetes' controller manager writes them to the Node.
    Kubernetes,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterPool => "cluster-pool",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// The text names no mode that we have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of cluster-pool, kubernetes")]
pub struct ParseModeError(String);

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cluster-pool" => Ok(Self::ClusterPool),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(ParseModeError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;

    #[test]
    fn a_mode_reads_back_and_one_that_we_do_not_have_is_refused() {
        for mode in [Mode::ClusterPool, Mode::Kubernetes] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("eni".parse::<Mode>().is_err());
    }
}
