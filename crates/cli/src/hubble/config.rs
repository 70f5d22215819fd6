// SPDX-License-Identifier: Apache-2.0
//! `hubble config`: a file with values for flags. What is given as a flag or in the environment counts before it.

use super::connect::Connection;
use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, Subcommand, value_parser};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Flags of `hubble observe` that a file may set: what `--print-raw-filters` prints is such a file.
const FILTERS: [&str; 2] = ["allowlist", "denylist"];
/// Its name, and that of the command.
const FILE: &str = "config";

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// Show the values that are in force: of flags, the environment, the file, or by default.
    View,
    /// Show one of them, or all.
    Get {
        /// A flag's name, without dashes.
        key: Option<String>,
    },
    /// Set a value in the file.
    Set {
        /// A flag's name, without dashes.
        key: String,
        /// Its value; commas between several.
        value: String,
    },
    /// Take a value out of the file, or all.
    Reset {
        /// A flag's name, without dashes.
        key: Option<String>,
    },
}

/// The flag that names the file.
pub(super) fn file() -> Arg {
    Arg::new(FILE)
        .long(FILE)
        .env("HUBBLE_CONFIG")
        .global(true)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("File with values for flags [default: ~/.config/hubble/config.yaml]")
}

/// The command as the file has it that its arguments name, or that is in its place.
pub(super) fn with_file(command: Command, args: &[OsString]) -> Result<Command> {
    let matches = command.clone().try_get_matches_from(args)?;
    let named = matches.get_one::<PathBuf>(FILE);
    // The first value makes the file.
    let needed = named.is_some() && matches.subcommand_name() != Some(FILE);
    let Some(path) = named.cloned().or_else(usual_place) else { return Ok(command) };
    if needed && !path.exists() {
        bail!("{}: there is no such file", path.display());
    }
    let values = read(&path)?;
    let command = with_values(command, &values).with_context(|| path.display().to_string())?;
    // What the arguments are worth was said above, so what is wrong now is in the file.
    match command.clone().try_get_matches_from(args) {
        Ok(_) => Ok(command),
        Err(error) => Err(anyhow!("{}: {}", path.display(), said(&error))),
    }
}

/// Runs `hubble config`; what is returned is to be printed.
pub(super) fn run(command: &Commands, matches: &ArgMatches, connection: &Connection) -> Result<String> {
    match command {
        Commands::View | Commands::Get { key: None } => {
            let values: Map<_, _> = keys().map(|key| (name(&key), in_force(&key, matches, connection))).collect();
            let file = Value::from(place(matches).unwrap_or_default().display().to_string());
            Ok(serde_saphyr::to_string(&[(FILE.to_owned(), file)].into_iter().chain(values).collect::<Map<_, _>>())?)
        }
        Commands::Get { key: Some(key) } => match in_force(&known(key)?, matches, connection) {
            Value::Array(values) => Ok(values.iter().map(|value| text(value) + "\n").collect()),
            value => Ok(text(&value) + "\n"),
        },
        Commands::Set { key, value } => {
            let arg = known(key)?;
            let values = Map::from_iter([(key.clone(), typed(&arg, value))]);
            let one = with_values(super::command(), &values)?;
            one.try_get_matches_from(["hubble", "version"]).map_err(|error| anyhow!(said(&error)))?;
            change(matches, |file| file.extend(values))
        }
        Commands::Reset { key: Some(key) } => {
            known(key)?;
            change(matches, |file| drop(file.remove(key)))
        }
        Commands::Reset { key: None } => change(matches, Map::clear),
    }
}

/// The flags that a file may set for all commands.
fn keys() -> impl Iterator<Item = Arg> {
    let global = super::command().get_arguments().filter(|arg| arg.is_global_set()).cloned().collect::<Vec<_>>();
    global.into_iter().filter(|arg| name(arg) != FILE)
}

fn known(key: &str) -> Result<Arg> {
    let names = || keys().map(|arg| name(&arg)).collect::<Vec<_>>().join(", ");
    keys().find(|arg| name(arg) == key).with_context(|| format!("{key:?} is no key: want one of {}", names()))
}

fn name(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().to_owned()
}

/// Gives flags the values of a file as their defaults.
fn with_values(mut command: Command, values: &Map<String, Value>) -> Result<Command> {
    for (key, value) in values {
        let texts =
            texts(value).with_context(|| format!("{key}: want a text, a number, true, false, or a list of these"))?;
        if FILTERS.contains(&key.as_str()) {
            command = command.mut_subcommand("observe", |observe| with_default(observe, key, &texts));
        } else if let Ok(arg) = known(key) {
            command = command.mut_arg(arg.get_id().clone(), |arg| arg.default_values(texts));
        } else {
            eprintln!("{key:?} in the file of hubble's configuration is not honoured");
        }
    }
    Ok(command)
}

/// Of a command, and of those below it that have the flag too.
fn with_default(command: Command, key: &str, texts: &[String]) -> Command {
    let below: Vec<_> = command.get_subcommands().map(|next| next.get_name().to_owned()).collect();
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(key)).map(|arg| arg.get_id().clone());
    let command = match found {
        Some(id) => command.mut_arg(id, |arg| arg.default_values(texts.to_vec())),
        None => command,
    };
    below.iter().fold(command, |command, next| command.mut_subcommand(next, |next| with_default(next, key, texts)))
}

/// The values of a flag of the file, none if it has another form.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(|value| Some(texts(value)?.concat())).collect(),
        Value::Object(_) => None,
        Value::Null => Some(Vec::new()),
        single => Some(vec![text(single)]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value as a file has it.
fn typed(arg: &Arg, value: &str) -> Value {
    match value.parse() {
        _ if arg.get_value_delimiter().is_some() => value.split(',').filter(|part| !part.is_empty()).collect(),
        Ok(yes) if matches!(arg.get_action(), ArgAction::SetTrue) => Value::Bool(yes),
        _ => Value::from(value),
    }
}

fn in_force(arg: &Arg, matches: &ArgMatches, connection: &Connection) -> Value {
    let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    let values: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    match values.as_slice() {
        // It depends on what there is.
        [] if name(arg) == "server" => Value::from(connection.address()),
        values => typed(arg, &values.join(",")),
    }
}

fn place(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(FILE).cloned().or_else(usual_place)
}

/// `$XDG_CONFIG_HOME/hubble/config.yaml`, or what an earlier version of Hubble's command has used.
fn usual_place() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let usual = usual.map(|folder| folder.join("hubble/config.yaml"));
    let early = folder("HOME").map(|home| home.join(".hubble/config.yaml"));
    if usual.as_ref().is_some_and(|path| path.exists()) { usual } else { early.filter(|path| path.exists()).or(usual) }
}

/// What is in a file; nothing if there is none.
fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    let values: Option<Map<_, _>> =
        serde_saphyr::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    Ok(values.unwrap_or_default())
}

/// Changes the file, or leaves it as it is.
fn change(matches: &ArgMatches, change: impl FnOnce(&mut Map<String, Value>)) -> Result<String> {
    let path = place(matches).context("there is no home directory: name a file with --config")?;
    // A link stays one.
    let path = path.canonicalize().unwrap_or(path);
    let mut values = read(&path)?;
    change(&mut values);
    let text = if values.is_empty() { String::new() } else { serde_saphyr::to_string(&values)? };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let new = path.with_extension("yaml.new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path)
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(String::new())
}

/// What clap says first of an error.
fn said(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
