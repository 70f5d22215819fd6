// SPDX-License-Identifier: Apache-2.0
//! How much stack a program takes, as the kernel reckons it without a JIT's own layout: the frames of the deepest chain of calls, each
//! rounded up (`check_max_stack_depth` in the kernel's `verifier.c`).

use std::collections::{BTreeMap, BTreeSet};

/// Frames are rounded up to that many bytes.
const GRANULE: u32 = 32;

/// An instruction, as the kernel gives it out (`struct bpf_insn`).
type Instruction = [u8; 8];

/// Bytes of stack of the deepest chain of calls from the first instruction on.
pub(super) fn depth(program: &[Instruction]) -> u32 {
    let functions = functions(program);
    let mut known = BTreeMap::new();
    depth_from(0, &functions, &mut known)
}

/// What is known of a function.
struct Function {
    frame: u32,
    /// First instructions of the functions that it calls.
    calls: BTreeSet<usize>,
}

/// The functions by their first instructions.
fn functions(program: &[Instruction]) -> BTreeMap<usize, Function> {
    let mut starts: BTreeSet<usize> = calls(0, program).collect();
    starts.insert(0);
    let ends = starts.iter().copied().skip(1).chain([program.len()]);
    let ranges = starts.iter().copied().zip(ends);
    ranges
        .map(|(start, end)| {
            let body = program.get(start..end).unwrap_or_default();
            (start, Function { frame: frame(body), calls: calls(start, body).collect() })
        })
        .collect()
}

fn depth_from(start: usize, functions: &BTreeMap<usize, Function>, known: &mut BTreeMap<usize, u32>) -> u32 {
    if let Some(depth) = known.get(&start) {
        return *depth;
    }
    let Some(function) = functions.get(&start) else { return 0 };
    let below = function.calls.iter().map(|call| depth_from(*call, functions, known)).max().unwrap_or(0);
    let depth = function.frame.max(1).next_multiple_of(GRANULE) + below;
    known.insert(start, depth);
    depth
}

/// Where the calls of a function lead that begins at `start`. The kernel gives the distance out in the offset.
fn calls(start: usize, body: &[Instruction]) -> impl Iterator<Item = usize> {
    const CALL: u8 = 0x85;
    const OF_FUNCTION: u8 = 1;
    body.iter().enumerate().filter_map(move |(at, [operation, registers, low, high, ..])| {
        let is_call = *operation == CALL && registers >> 4 == OF_FUNCTION;
        let distance = isize::from(i16::from_le_bytes([*low, *high]));
        if is_call { (start + at + 1).checked_add_signed(distance) } else { None }
    })
}

/// Register 10 points at the end of the frame: the lowest offset from it that is used is the frame's size.
fn frame(body: &[Instruction]) -> u32 {
    const FRAME: u8 = 10;
    const LOAD: u8 = 1;
    const STORE_IMMEDIATE: u8 = 2;
    const STORE: u8 = 3;
    const MOVE_64: u8 = 0xbf;
    const ADD_64_IMMEDIATE: u8 = 0x07;
    let mut lowest = 0;
    let mut address_in = None;
    for [operation, registers, low, high, immediate @ ..] in body {
        let (destination, source) = (registers & 0xf, registers >> 4);
        let base = match operation & 7 {
            LOAD => Some(source),
            STORE_IMMEDIATE | STORE => Some(destination),
            _ => None,
        };
        if base == Some(FRAME) {
            lowest = lowest.min(i32::from(i16::from_le_bytes([*low, *high])));
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
    use super::*;

    const EXIT: Instruction = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn store_at(offset: i16) -> Instruction {
        let [low, high] = offset.to_le_bytes();
        [0x7b, 0x1a, low, high, 0, 0, 0, 0]
    }

    fn call(distance: i16) -> Instruction {
        let [low, high] = distance.to_le_bytes();
        [0x85, 0x10, low, high, 0, 0, 0, 0]
    }

    #[test]
    fn a_frame_is_as_deep_as_its_lowest_access_or_address() {
        let r2_is_frame = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0];
        let r2_minus_40 = [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff];
        assert_eq!(frame(&[]), 0);
        assert_eq!(frame(&[store_at(-16)]), 16);
        assert_eq!(frame(&[store_at(-16), r2_is_frame, r2_minus_40]), 40);
        assert_eq!(frame(&[store_at(-16), r2_minus_40]), 16);
    }

    #[test]
    fn the_deepest_chain_counts_and_not_the_deepest_function() {
        // The first function calls the second (frame 100), and the third (40), which calls the fourth (72).
        let program = [
            call(3),
            store_at(-8),
            call(3),
            EXIT,
            store_at(-100),
            EXIT,
            store_at(-40),
            call(1),
            EXIT,
            store_at(-72),
            EXIT,
        ];
        assert_eq!(depth(&program), 32 + 64 + 96);
    }

    #[test]
    fn a_function_without_a_frame_takes_a_granule() {
        assert_eq!(depth(&[call(1), EXIT, EXIT]), 64);
    }

    #[test]
    fn a_call_backwards_is_followed() {
        let program = [call(3), EXIT, store_at(-200), EXIT, call(-3), EXIT];
        assert_eq!(depth(&program), 32 + 32 + 224);
    }

    #[test]
    fn helpers_of_the_kernel_are_no_functions() {
        let helper = [0x85, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(depth(&[helper, EXIT]), 32);
    }
}
