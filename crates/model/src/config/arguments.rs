// SPDX-License-Identifier: Apache-2.0
//! The command line of a daemon that is configured by keys. It is here because both daemons share it.

use super::AnyKey;
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

const CONFIG_DIR: &str = "config-dir";

/// A folder with one file per key, as Kubernetes mounts a ConfigMap, and keys as flags of the same names, which win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The folder.
    pub config_dir: Option<PathBuf>,
    /// Keys given as flags.
    pub keys: BTreeMap<String, String>,
}

impl Arguments {
    /// The command with a flag for each key.
    #[must_use]
    pub fn command<'a>(name: &'static str, about: &'static str, keys: impl IntoIterator<Item = &'a AnyKey>) -> Command {
        let folder = Arg::new(CONFIG_DIR)
            .long(CONFIG_DIR)
            .value_name("DIR")
            .help("folder with one file per configuration key, as Kubernetes mounts a ConfigMap; flags win over it");
        Self::flags(Command::new(name).about(about).arg(folder), keys)
    }

    /// The command with a flag for each key, and no folder.
    #[must_use]
    pub fn flags<'a>(command: Command, keys: impl IntoIterator<Item = &'a AnyKey>) -> Command {
        command.args(keys.into_iter().map(flag))
    }

    /// The flags that were given, for a command whose arguments are all texts.
    #[must_use]
    pub fn given(matches: &ArgMatches) -> BTreeMap<String, String> {
        let text = |id: &clap::Id| Some((id.to_string(), matches.get_one::<String>(id.as_str())?.clone()));
        matches.ids().filter_map(text).collect()
    }

    /// Parses the arguments of a [`command`](Self::command); the first is the program's name.
    ///
    /// # Errors
    ///
    /// A flag is unknown, or help or the version was requested.
    pub fn parse<I: IntoIterator<Item = OsString>>(command: Command, arguments: I) -> Result<Self, clap::Error> {
        let matches = command.try_get_matches_from(arguments)?;
        let mut keys = Self::given(&matches);
        Ok(Self { config_dir: keys.remove(CONFIG_DIR).map(PathBuf::from), keys })
    }
}

/// As in Cilium: `--key=value` or `--key value`, and `--key` alone turns a switch on.
fn flag(key: &AnyKey) -> Arg {
    let help = match key.default {
        "" => key.meaning.to_owned(),
        default => format!("{} [default: {default}]", key.meaning),
    };
    let flag = Arg::new(key.name).long(key.name).value_name("VALUE").help(help);
    if key.is_switch() { flag.num_args(0..=1).require_equals(true).default_missing_value("true") } else { flag }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    fn command() -> Command {
        let debug = Key::<bool>::new("debug", "Log details.").default("false");
        let name = Key::<String>::new("cluster-name", "Name.").default("default");
        Arguments::command("daemon", "A daemon", &[debug.any(), name.any()])
    }

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::parse(command(), std::iter::once("daemon").chain(arguments.iter().copied()).map(Into::into))
    }

    #[test]
    fn keys_are_flags_and_a_switch_needs_no_value() {
        command().debug_assert();
        let given = |arguments| parse(arguments).unwrap().keys.into_iter().collect::<Vec<_>>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(given(&["--debug"]), [pair("debug", "true")]);
        assert_eq!(given(&["--debug=false", "--cluster-name=a"]), [pair("cluster-name", "a"), pair("debug", "false")]);
        assert_eq!(given(&["--cluster-name", "a b"]), [pair("cluster-name", "a b")]);
        assert_eq!(parse(&["--config-dir", "/x"]).unwrap().config_dir, Some(PathBuf::from("/x")));
        assert_eq!(parse(&[]).unwrap(), Arguments::default());
    }

    #[test]
    fn a_flag_that_is_no_key_is_refused_by_its_name() {
        assert!(parse(&["--nonsense=1"]).unwrap_err().to_string().contains("--nonsense"));
    }

    #[test]
    fn help_tells_each_key_with_meaning_and_default() {
        let help = command().render_help().to_string();
        let line = |flag: &str| help.lines().any(|line| line.contains(flag));
        assert!(line("--debug[=<VALUE>]") && line("Log details [default: false]"), "{help}");
        assert!(line("--cluster-name <VALUE>") && line("Name [default: default]"), "{help}");
    }
}
