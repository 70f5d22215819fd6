// SPDX-License-Identifier: Apache-2.0
//! `cilium lab`: a program of its own, which is not in the image.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Its name.
const PROGRAM: &str = "cilium-lab";

/// Becomes that program, with the arguments behind `cilium lab`. Returns when there is none.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let own = std::env::current_exe().ok();
    let program = find(own.as_deref(), std::env::var_os("PATH").as_deref());
    let error = match &program {
        Some(program) => Command::new(program).args(arguments.iter().skip(2)).exec(),
        None => io::Error::new(
            io::ErrorKind::NotFound,
            "there is none beside this program or in PATH; `cargo build --package lab` makes target/debug/cilium-lab",
        ),
    };
    let name = program.unwrap_or_else(|| PROGRAM.into());
    eprintln!("cilium lab: {}: {error}", name.display());
    ExitCode::FAILURE
}

/// The program beside this one, else the first in `path`.
fn find(own: Option<&Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    let beside = own.and_then(Path::parent).map(Path::to_owned);
    let folders = beside.into_iter().chain(path.into_iter().flat_map(std::env::split_paths));
    folders.map(|folder| folder.join(PROGRAM)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_is_found_beside_this_program_before_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let [here, there, nowhere] = ["here", "there", "nowhere"].map(|name| folder.path().join(name));
        let path = std::env::join_paths([&nowhere, &there]).unwrap();
        let found = || find(Some(&here.join("cilium-rs")), Some(&path));
        assert_eq!(found(), None);
        for each in [&there, &here] {
            fs::create_dir(each).unwrap();
            fs::write(each.join(PROGRAM), "").unwrap();
            assert_eq!(found(), Some(each.join(PROGRAM)));
        }
    }
}
