// SPDX-License-Identifier: Apache-2.0
//! What the programs cost under real traffic, by the kernel's own accounting.

use std::os::fd::{AsFd, OwnedFd};

use super::pins::failed;
use super::{Pinned, Program};
use crate::{Error, Result, sys};

/// The kernel counts for as long as this lives. Two looks at the clock make each run some 20 ns longer.
#[derive(Debug)]
pub struct RunTimeCount {
    _counting: OwnedFd,
}

impl RunTimeCount {
    /// Starts counting, for all programs of the machine.
    pub fn start() -> Result<Self> {
        let counting = sys::count_run_time().map_err(|source| Error::RunTime { source })?;
        Ok(Self { _counting: counting })
    }
}

/// What was counted of one program since it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTime {
    /// The program.
    pub program: Program,
    /// How often it ran.
    pub runs: u64,
    /// For how long, all runs together.
    pub nanoseconds: u64,
}

impl Pinned {
    /// What was counted of each program that is pinned.
    pub fn run_times(&self) -> Result<Vec<RunTime>> {
        let mut times = Vec::new();
        for program in Program::ALL {
            let path = self.pins().programs().join(program.name());
            let Some(fd) = sys::open_pin(&path).map_err(|source| failed("open", &path, source))? else { continue };
            let (runs, nanoseconds) =
                sys::program_run_time(fd.as_fd()).map_err(|source| failed("inspect", &path, source))?;
            times.push(RunTime { program, runs, nanoseconds });
        }
        Ok(times)
    }
}
