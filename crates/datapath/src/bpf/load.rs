// SPDX-License-Identifier: Apache-2.0
//! Loading the object: maps by pin, constants of the node, programs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use abi::MapDef;
use abi::config::ProgramConfig;
use abi::maps::{ConnectedSockets, Events, Flows, Openings};
use abi::rings;
use aya::programs::{CgroupSock, CgroupSockAddr, Iter, ProgramError, SchedClassifier, Xdp};
use aya::{Btf, Ebpf, EbpfLoader};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::map::KernelMap;
use super::migrate::create_or_adopt;
use super::pins::{Pins, pin_over};
use super::{BPFFS, Features, Place, Program, TestRun, event_rings};
use crate::flows::now;
use crate::map::raw::RawMap;
use crate::{Error, Kernel, MapSpec, Result, sys};

/// The kernel programs, as `build.rs` built them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cilium-bpf.o"));

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the bpf file system is mounted.
    pub bpffs: PathBuf,
    /// Constants of the node.
    pub config: ProgramConfig,
    /// Entries of the flow table, unless one is adopted.
    pub flows: u32,
    /// Attach by clsact and a filter even though the kernel has tcx.
    pub force_clsact: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { bpffs: BPFFS.into(), config: ProgramConfig::default(), flows: Flows::CAPACITY, force_clsact: false }
    }
}

/// Maps by name.
pub(super) type Maps = BTreeMap<&'static str, Arc<KernelMap>>;

/// The loaded programs and their maps.
#[derive(Debug)]
pub struct Datapath {
    pub(super) pins: Pins,
    pub(super) force_clsact: bool,
    pub(super) maps: Maps,
    /// Ticks since boot. Flows that programs of an older build have added from then on may be missing.
    pub(super) complete_until: u32,
    config: ProgramConfig,
    programs: BTreeMap<Program, OwnedFd>,
}

impl Datapath {
    /// Adopts the pinned maps, makes those that are missing, and loads the programs. What is attached stays as it is until
    /// it is attached anew.
    pub fn load(options: &Options) -> Result<Self> {
        let pins = Pins::create(&options.bpffs)?;
        lift_memory_limit();
        let begun = now();
        let (maps, complete) = open_maps(&pins, options.flows)?;
        let config = Features::of_this_kernel().limit(options.config);
        let host_netns = if config.host_netns == 0 { sys::netns::cookie() } else { config.host_netns };
        let config = ProgramConfig { openings: places(&maps), event_wakeup: wakeup(&maps)?, host_netns, ..config };
        let mut ebpf = load_object(&pins, &config)?;
        let mut programs = BTreeMap::new();
        for program in Program::ALL {
            let fd = load_program(&mut ebpf, program)?;
            pin_over(fd.as_fd(), &pins.programs().join(program.name()))?;
            programs.insert(program, fd);
        }
        let complete_until = if complete { begun } else { 0 };
        Ok(Self { pins, force_clsact: options.force_clsact, maps, complete_until, config, programs })
    }

    /// The constants that the programs have: those of the options, as far as the kernel and the maps allow.
    #[must_use]
    pub fn config(&self) -> &ProgramConfig {
        &self.config
    }

    /// Runs a traffic control program, or one before the stack, `repeat` times on an Ethernet frame on that interface, for tests and benchmarks. What enters a
    /// pod was made on this node; everything else came in there.
    pub fn test_run(&self, program: Program, frame: &[u8], ifindex: u32, repeat: u32) -> Result<TestRun> {
        let arrived_by = if program == Program::PodIngress { 0 } else { ifindex };
        self.test_run_at(program, frame, Place { ifindex, arrived_by, ..Place::default() }, repeat)
    }

    /// The same for a packet that came in elsewhere.
    pub fn test_run_at(&self, program: Program, frame: &[u8], place: Place, repeat: u32) -> Result<TestRun> {
        let fd = self.program(program)?;
        let run = match program {
            Program::NetdevXdp => sys::test_run::test_run_xdp(fd, frame, place.ifindex, repeat),
            _ => sys::test_run::test_run(fd, frame, place, repeat),
        };
        run.map_err(|source| Error::TestRun { program: program.name(), source })
    }

    /// A link that reads out what sockets remember (`abi::lb::SocketMemory`).
    pub(crate) fn iterate_sockets(&self) -> Result<OwnedFd> {
        const NAME: &str = "sock_memory";
        let failed = |source| Error::LoadProgram { program: NAME, source: Box::new(source) };
        let mut ebpf = load_object(&self.pins, &self.config)?;
        let missing = Error::NoSuchProgram { program: NAME, expected: "iterator" };
        let Some(Ok(program)) = ebpf.program_mut(NAME).map(<&mut Iter>::try_from) else { return Err(missing) };
        let types = Btf::from_sys_fs().map_err(|source| failed(source.into()))?;
        uninterrupted(|| program.load("bpf_sk_storage_map", &types)).map_err(failed)?;
        let program = program.fd().map_err(failed)?;
        let map = self.maps.get(ConnectedSockets::NAME).ok_or(missing)?;
        sys::iterator::attach(program.as_fd(), map.descriptor()).map_err(|source| failed(source.into()))
    }

    pub(super) fn program(&self, program: Program) -> Result<BorrowedFd<'_>> {
        let fd = self.programs.get(&program);
        fd.map(AsFd::as_fd).ok_or(Error::NoSuchProgram { program: program.name(), expected: "any" })
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = (Program, BorrowedFd<'_>)> {
        self.programs.iter().map(|(program, fd)| (*program, fd.as_fd()))
    }
}

impl Kernel for Datapath {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        match self.maps.get(spec.name) {
            Some(map) => Ok(Arc::<KernelMap>::clone(map)),
            None => Err(Error::NotPinned { map: spec.name, path: self.pins.map(&spec) }),
        }
    }
}

/// Before 5.11 the kernel counts maps and programs as locked memory, of which a process may have too little for any of ours.
fn lift_memory_limit() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        // A newer kernel does not ask, and an older one refuses the first map by name.
        tracing::debug!(%error, "cannot raise RLIMIT_MEMLOCK");
    }
}

/// All maps, and whether they hold what an older build remembers up to now. The rings are as long as the flow table that there is
/// wants them, whatever it was asked to be.
fn open_maps(pins: &Pins, flows: u32) -> Result<(Maps, bool)> {
    let mut maps = Maps::new();
    let mut all_complete = true;
    for spec in MapSpec::all() {
        let entries = match spec.name {
            Flows::NAME => flows,
            Openings::NAME => rings::RINGS_AND_STACK * rings::places(capacity(&maps, Flows::NAME).unwrap_or(flows)),
            _ => spec.capacity,
        };
        let (map, complete) = create_or_adopt(pins, &spec, entries, &maps)?;
        maps.insert(spec.name, Arc::new(map));
        all_complete &= complete;
    }
    Ok((maps, all_complete))
}

fn capacity(maps: &Maps, name: &str) -> Option<u32> {
    maps.get(name).map(|map| map.capacity())
}

/// Places in each ring, by the map that there is: the programs must not reach beyond it.
fn places(maps: &Maps) -> u32 {
    capacity(maps, Openings::NAME).unwrap_or_default() / rings::RINGS_AND_STACK
}

/// Unread bytes in a ring of events at which the reader is woken, by the rings that there are: a quarter of one.
fn wakeup(maps: &Maps) -> Result<u32> {
    maps.get(Events::NAME).map_or(Ok(0), |rings| Ok(event_rings::length(&**rings)? / 4))
}

fn load_object(pins: &Pins, config: &ProgramConfig) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for spec in MapSpec::all() {
        loader.map_pin_path(spec.name, pins.map(&spec));
    }
    for (name, value) in config.globals() {
        // A constant that no program reads is not in the object.
        loader.override_global(name, value, false);
    }
    loader.load(OBJECT).map_err(|source| Error::Load { source: Box::new(source) })
}

/// How often the verifier may be interrupted before that counts as a failure.
const ATTEMPTS: u32 = 10;

/// Loads a program, again when a signal to this thread has ended the verifier (`EAGAIN`), which says nothing of the program.
fn uninterrupted(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    again(load, |error| match error {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == io::ErrorKind::WouldBlock,
        _ => false,
    })
}

fn again<E>(mut load: impl FnMut() -> Result<(), E>, is_interrupted: impl Fn(&E) -> bool) -> Result<(), E> {
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if is_interrupted(&error) => {}
            result => return result,
        }
    }
    load()
}

fn load_program(ebpf: &mut Ebpf, program: Program) -> Result<OwnedFd> {
    let name = program.name();
    let failed = |source| Error::LoadProgram { program: name, source: Box::new(source) };
    let found = ebpf.program_mut(name);
    let fd = if matches!(program, Program::SockPostBind4 | Program::SockPostBind6) {
        let missing = Error::NoSuchProgram { program: name, expected: "cgroup sock" };
        let Some(Ok(loaded)) = found.map(<&mut CgroupSock>::try_from) else { return Err(missing) };
        uninterrupted(|| loaded.load()).map_err(failed)?;
        loaded.fd().map_err(failed)?.as_fd().try_clone_to_owned()
    } else if program == Program::NetdevXdp {
        let missing = Error::NoSuchProgram { program: name, expected: "XDP" };
        let Some(Ok(loaded)) = found.map(<&mut Xdp>::try_from) else { return Err(missing) };
        uninterrupted(|| loaded.load()).map_err(failed)?;
        loaded.fd().map_err(failed)?.as_fd().try_clone_to_owned()
    } else if program.cgroup_attach_type().is_some() {
        let missing = Error::NoSuchProgram { program: name, expected: "cgroup sock_addr" };
        let Some(Ok(loaded)) = found.map(<&mut CgroupSockAddr>::try_from) else { return Err(missing) };
        uninterrupted(|| loaded.load()).map_err(failed)?;
        loaded.fd().map_err(failed)?.as_fd().try_clone_to_owned()
    } else {
        let missing = Error::NoSuchProgram { program: name, expected: "traffic control classifier" };
        let Some(Ok(loaded)) = found.map(<&mut SchedClassifier>::try_from) else { return Err(missing) };
        uninterrupted(|| loaded.load()).map_err(failed)?;
        loaded.fd().map_err(failed)?.as_fd().try_clone_to_owned()
    };
    fd.map_err(|source| failed(source.into()))
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, again};

    #[test]
    fn what_was_interrupted_is_tried_again_but_not_for_ever_and_nothing_else_is() {
        let tries = |interrupted: u32, then: Result<(), bool>| {
            let mut count = 0;
            let load = || {
                count += 1;
                if count <= interrupted { Err(true) } else { then }
            };
            let result = again(load, |interrupted| *interrupted);
            (count, result)
        };
        assert_eq!(tries(0, Ok(())), (1, Ok(())));
        assert_eq!(tries(3, Ok(())), (4, Ok(())));
        assert_eq!(tries(0, Err(false)), (1, Err(false)));
        assert_eq!(tries(2, Err(false)), (3, Err(false)));
        assert_eq!(tries(ATTEMPTS - 1, Ok(())), (ATTEMPTS, Ok(())));
        assert_eq!(tries(ATTEMPTS, Ok(())), (ATTEMPTS, Err(true)));
    }
}
