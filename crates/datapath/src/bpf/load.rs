// SPDX-License-Identifier: Apache-2.0
//! Loading the object: maps by pin, constants of the node, programs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use abi::config::ProgramConfig;
use aya::programs::{CgroupSockAddr, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::map::{KernelMap, create_or_adopt};
use super::pins::{Pins, pin_over};
use super::{BPFFS, Features, Program, TestRun};
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
        Self {
            bpffs: BPFFS.into(),
            config: ProgramConfig::default(),
            flows: <abi::maps::Flows as abi::MapDef>::CAPACITY,
            force_clsact: false,
        }
    }
}

/// The loaded programs and their maps.
#[derive(Debug)]
pub struct Datapath {
    pub(super) pins: Pins,
    pub(super) force_clsact: bool,
    maps: BTreeMap<&'static str, Arc<KernelMap>>,
    programs: BTreeMap<Program, OwnedFd>,
}

impl Datapath {
    /// Adopts the pinned maps, makes those that are missing, and loads the programs. What is attached stays as it is until
    /// it is attached anew.
    pub fn load(options: &Options) -> Result<Self> {
        let pins = Pins::create(&options.bpffs)?;
        lift_memory_limit();
        let mut maps = BTreeMap::new();
        for spec in MapSpec::all() {
            let entries =
                if spec.name == <abi::maps::Flows as abi::MapDef>::NAME { options.flows } else { spec.capacity };
            maps.insert(spec.name, Arc::new(create_or_adopt(&pins, &spec, entries)?));
        }
        let mut ebpf = load_object(&pins, &Features::of_this_kernel().limit(options.config), &maps)?;
        let mut programs = BTreeMap::new();
        for program in Program::ALL {
            let fd = load_program(&mut ebpf, program)?;
            pin_over(fd.as_fd(), &pins.programs().join(program.name()))?;
            programs.insert(program, fd);
        }
        Ok(Self { pins, force_clsact: options.force_clsact, maps, programs })
    }

    /// Runs a traffic control program `repeat` times on an Ethernet frame on that interface, for tests and benchmarks.
    pub fn test_run(&self, program: Program, frame: &[u8], ifindex: u32, repeat: u32) -> Result<TestRun> {
        sys::test_run::test_run(self.program(program)?, frame, ifindex, repeat)
            .map_err(|source| Error::TestRun { program: program.name(), source })
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
            None => Err(Error::NotPinned { map: spec.name, path: self.pins.map(spec.name) }),
        }
    }
}

/// Before 5.11 the kernel counts maps and programs as locked memory, of which a process may have too little for any of ours.
fn lift_memory_limit() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        // A newer kernel does not ask, and an older one refuses the first map by name.
        tracing::debug!(%error, "cannot lift the limit of locked memory");
    }
}

fn load_object(pins: &Pins, config: &ProgramConfig, maps: &BTreeMap<&'static str, Arc<KernelMap>>) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for name in maps.keys() {
        loader.map_pin_path(name, pins.map(name));
    }
    for (name, value) in config.globals() {
        // A constant that no program reads is not in the object.
        loader.override_global(name, value, false);
    }
    loader.load(OBJECT).map_err(|source| Error::Load { source: Box::new(source) })
}

fn load_program(ebpf: &mut Ebpf, program: Program) -> Result<OwnedFd> {
    let name = program.name();
    let failed = |source| Error::LoadProgram { program: name, source: Box::new(source) };
    let found = ebpf.program_mut(name);
    let fd = if program.cgroup_attach_type().is_some() {
        let missing = Error::NoSuchProgram { program: name, expected: "cgroup sock_addr" };
        let Some(Ok(loaded)) = found.map(<&mut CgroupSockAddr>::try_from) else { return Err(missing) };
        loaded.load().map_err(failed)?;
        loaded.fd().map_err(failed)?.as_fd().try_clone_to_owned()
    } else {
        let missing = Error::NoSuchProgram { program: name, expected: "traffic control classifier" };
        let Some(Ok(loaded)) = found.map(<&mut SchedClassifier>::try_from) else { return Err(missing) };
        loaded.load().map_err(failed)?;
        loaded.fd().map_err(failed)?.as_fd().try_clone_to_owned()
    };
    fd.map_err(|source| failed(source.into()))
}
