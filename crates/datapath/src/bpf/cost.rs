// SPDX-License-Identifier: Apache-2.0
//! What the programs cost the verifier, as a budget that a test compares with.

use std::os::fd::BorrowedFd;

use super::pins::failed;
use super::{Datapath, Program};
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
    /// Bytes of stack of the function that uses most.
    pub deepest_frame: u32,
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
            deepest_frame: deepest_frame(&info.instructions),
        })
    }
}

/// Register 10 points at the end of the frame: the lowest offset from it that is used is the frame's size.
fn deepest_frame(instructions: &[[u8; 8]]) -> u32 {
    const FRAME: u8 = 10;
    const LOAD: u8 = 1;
    const STORE_IMMEDIATE: u8 = 2;
    const STORE: u8 = 3;
    const MOVE_64: u8 = 0xbf;
    const ADD_64_IMMEDIATE: u8 = 0x07;
    let mut lowest = 0;
    let mut address_in = None;
    for [operation, registers, off_low, off_high, immediate @ ..] in instructions {
        let (destination, source) = (registers & 0xf, registers >> 4);
        let base = match operation & 7 {
            LOAD => Some(source),
            STORE_IMMEDIATE | STORE => Some(destination),
            _ => None,
        };
        if base == Some(FRAME) {
            lowest = lowest.min(i32::from(i16::from_le_bytes([*off_low, *off_high])));
        }
        if *operation == ADD_64_IMMEDIATE && address_in == Some(destination) {
            lowest = lowest.min(i32::from_le_bytes(*immediate));
        }
        address_in = (*operation == MOVE_64 && source == FRAME).then_some(destination);
    }
    lowest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::deepest_frame;

    #[test]
    fn a_frame_is_as_deep_as_its_lowest_access_or_address() {
        let store_at_minus_16 = [0x7b, 0x1a, 0xf0, 0xff, 0, 0, 0, 0];
        let r2_is_frame = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0];
        let r2_minus_40 = [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff];
        assert_eq!(deepest_frame(&[]), 0);
        assert_eq!(deepest_frame(&[store_at_minus_16]), 16);
        assert_eq!(deepest_frame(&[store_at_minus_16, r2_is_frame, r2_minus_40]), 40);
        assert_eq!(deepest_frame(&[store_at_minus_16, r2_minus_40]), 16);
    }
}
