// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod dependencies;
mod files;
mod layers;
mod metadata;
mod mutants;
mod tests;
mod unused;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in &faults {
                eprintln!("error: {fault}");
            }
            eprintln!("xtask {}: {} at fault", arguments.join(" "), faults.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    match arguments {
        ["layers"] => layers::check(&root),
        ["layers", "--write"] => layers::write(&root),
        ["licences"] => Ok([files::licences(&root)?, dependencies::check(&root)?].concat()),
        ["size"] => files::size(&root),
        ["unused"] => unused::check(&root),
        ["test", group] => tests::run(&root, group),
        ["test", group, "--write"] => tests::write(&root, group),
        ["mutants", "--related", words @ ..] => mutants::run(&root, mutants::Reach::Related, words),
        ["mutants", words @ ..] => mutants::run(&root, mutants::Reach::All, words),
        _ => bail!(
            "usage: xtask layers [--write] | licences | size | unused | test quick|rest|lab [--write] | mutants [--related] [WORD...]"
        ),
    }
}
