// SPDX-License-Identifier: Apache-2.0
//! The commands of the one binary and their flags, from the definitions by which they are parsed. What has none, as a CNI
//! plugin, is asked for its usage.

use crate::page::{Page, code, codes};
use clap::{Arg, Command};

const TEXT: &str = "\
One binary, which runs the component that it is called by: the image has it under the names below. On a workstation it is `cilium`, and `cilium agent`,
`operator`, `cni`, `dbg`, `health`, `mount` and `hubble` are the components of those names. In the image of the agent, `cilium` is `cilium-dbg`.";

pub(crate) fn page() -> Page {
    let mut page = Page::new("Commands", TEXT);
    let [cilium, dbg, health, hubble, curl] = cli::commands();
    for command in
        [cilium, lab::command(), dbg, health, hubble, relay::command(), ui::command(), certgen::command(), curl]
    {
        describe(&mut page, command);
    }
    daemon(&mut page, agent::command());
    daemon(&mut page, operator::config::command());
    for (name, word) in [("cilium-cni", "cni"), ("cilium-mount", "mount")] {
        page.heading(2, name);
        page.block(&usage(name, word));
    }
    page.heading(2, "loopback");
    page.text("The CNI plugin of that name, for nodes that have none; no arguments.");
    page
}

fn describe(page: &mut Page, mut command: Command) {
    command.build();
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    section(page, &command, &name, &[]);
}

/// A command, then the commands below it; `above` are the flags that these inherit, or share with it.
fn section(page: &mut Page, command: &Command, name: &str, above: &[&Arg]) {
    let level = if above.is_empty() { 2 } else { 3 };
    page.heading(level, name);
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    page.text(&about);
    page.block(&command.clone().render_usage().to_string());
    let own: Vec<&Arg> = arguments(command).filter(|arg| !above.iter().any(|other| same(arg, other))).collect();
    page.table(["argument", "default", "meaning"], own.iter().map(|arg| row(arg)));
    if let Some(after) = command.get_after_help() {
        page.text(&after.to_string());
    }
    let below: Vec<&Arg> = above.iter().copied().chain(own).collect();
    for next in command.get_subcommands().filter(|next| next.get_name() != "help" && !next.is_hide_set()) {
        section(page, next, &format!("{name} {}", next.get_name()), &below);
    }
}

/// Two commands have an argument in common if it is global, or if all of it is the same.
fn same(arg: &Arg, other: &Arg) -> bool {
    arg.get_id() == other.get_id() && row(arg) == row(other)
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version"))
}

fn row(arg: &Arg) -> [String; 3] {
    let short = arg.get_short().filter(|_| arg.get_long().is_some()).map(|short| format!("-{short}, "));
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let takes_value = arg.get_action().takes_values();
    let default = if takes_value { codes(defaults) } else { String::new() };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut notes = Vec::new();
    let possible: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if takes_value && !possible.is_empty() {
        notes.push(format!("one of {}", codes(possible)));
    }
    notes.extend(arg.get_env().map(|name| format!("also by `${}`", name.to_string_lossy())));
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    [code(&format!("{}{arg}", short.unwrap_or_default())), default, help + &notes]
}

/// A daemon: its keys are flags too, and have a page of their own.
fn daemon(page: &mut Page, mut command: Command) {
    command.build();
    let keys = crate::config::all();
    page.heading(2, command.get_name());
    page.text(&command.get_about().map(ToString::to_string).unwrap_or_default());
    page.text(&format!(
        "Every [configuration key](config.md#{}) is a flag: `--key=value` or `--key value`; one that is `true` or `false` needs no value to be turned on.",
        command.get_name()
    ));
    let others = arguments(&command).filter(|arg| !keys.iter().any(|key| key.name == arg.get_id().as_str()));
    page.table(["argument", "default", "meaning"], others.map(row));
}

/// What a component says of itself when it is called the wrong way.
fn usage(name: &str, word: &str) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cilium"))
        .args([word, "help"])
        .env_remove("CILIUM_IN_AGENT_IMAGE")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("usage:"), "{name} has not told its usage: {text}");
    text.trim_start_matches(&format!("{name}: ")).to_owned()
}
