// SPDX-License-Identifier: Apache-2.0
//! What the programs cost the verifier, as a budget that a test compares with.

use std::os::fd::BorrowedFd;

use super::pins::failed;
use super::{Datapath, Program, stack};
use crate::{Result, sys};

/// What one program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// The program.
    pub program: Program,
    /// Instructions that the verifier walked, over all branches.
    pub verified_instructions: u32,
    /// Instructions that are left after it removed the dead ones.
    pub instructions: u32,
    /// Source lines of which it left something. The same on every kernel: one that leaves out more has lost track of a value.
    pub lines: u32,
    /// Bytes of stack of the deepest chain of calls, each frame rounded up to 32 bytes. The kernel allows 512.
    pub stack: u32,
}

impl Datapath {
    /// The cost of each program, with the constants it was loaded with.
    pub fn costs(&self) -> Result<Vec<ProgramCost>> {
        self.programs().map(|(program, fd)| self.cost(program, fd)).collect()
    }

    fn cost(&self, program: Program, fd: BorrowedFd<'_>) -> Result<ProgramCost> {
        let path = self.pins.programs().join(program.name());
        let info = sys::program_info(fd).map_err(|source| failed("inspect", &path, source))?;
        Ok(ProgramCost {
            program,
            verified_instructions: info.verified_instructions,
            instructions: u32::try_from(info.instructions.len()).unwrap_or(u32::MAX),
            lines: info.lines,
            stack: stack::depth(&info.instructions),
        })
    }
}
