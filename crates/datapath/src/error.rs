// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between user space and the kernel, each with the object it happened to.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of a request to the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room for another entry.
    #[error("map {map} is full ({entries} entries)")]
    MapFull {
        /// Name of the map.
        map: &'static str,
        /// Its capacity.
        entries: u32,
    },
    /// An array does not reach that far.
    #[error("map {map} has no index {index} (it has {entries} entries)")]
    NoSuchIndex {
        /// Name of the map.
        map: &'static str,
        /// The index asked for.
        index: String,
        /// Its capacity.
        entries: u32,
    },
    /// An operation on a map failed.
    #[error("map {map}: {operation} failed")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A link could not be spoken to.
    #[error("interface {ifindex}: cannot {operation}")]
    Wire {
        /// What was tried.
        operation: &'static str,
        /// Index of the interface; 0 before there is any.
        ifindex: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nothing can be pinned there.
    #[error("no bpf file system is mounted on {path}: run `mount -t bpf bpf {path}`")]
    NoBpfFs {
        /// Where it should be.
        path: PathBuf,
    },
    /// The agent has not run yet, or for another version of the layouts.
    #[error("map {map} is not pinned at {path}: is the agent running, and of this version?")]
    NotPinned {
        /// Name of the map.
        map: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// A map was pinned by a build that understands its bytes differently.
    #[error(
        "the map pinned at {path} has {difference}: another build made it; `cilium-dbg post-uninstall-cleanup` removes it"
    )]
    PinMismatch {
        /// Where it is.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// A file below the bpf file system could not be read, made, renamed or removed.
    #[error("cannot {operation} {path}")]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load the kernel programs")]
    Load {
        /// The reason.
        source: Box<aya::EbpfError>,
    },
    /// A program could not be loaded; the reason has the verifier's log.
    #[error("cannot load program {program}")]
    LoadProgram {
        /// Name of the program.
        program: &'static str,
        /// The reason.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object has no such program, or one of another type.
    #[error("the object has no program {program} of type {expected}")]
    NoSuchProgram {
        /// Name of the program.
        program: &'static str,
        /// The type it must have.
        expected: &'static str,
    },
    /// A program could not be attached.
    #[error("cannot attach program {program} to {target}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Interface or control group.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A packet could not be run through a program.
    #[error("cannot run program {program} on a packet")]
    TestRun {
        /// Name of the program.
        program: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel does not tell which programs it has.
    #[error("cannot list the loaded programs")]
    Programs {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel does not count how long programs run.
    #[error("cannot enable the statistics of programs' run time")]
    RunTime {
        /// The kernel's answer.
        source: io::Error,
    },
    /// Interfaces, addresses, routes or neighbours could not be read or changed.
    #[error("cannot {operation} {object}")]
    Netlink {
        /// What was tried.
        operation: &'static str,
        /// To what.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error("cannot {operation}")]
    Netns {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Netfilter refuses.
    #[error("netfilter: cannot {operation}")]
    Netfilter {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Sockets could not be found or closed.
    #[error("sockets: cannot {operation}")]
    Sockets {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A setting could not be read or written.
    #[error("cannot access the setting {name}")]
    Sysctl {
        /// Name below `/proc/sys`.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ring buffer of events could not be read.
    #[error("cannot read events")]
    Events {
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
