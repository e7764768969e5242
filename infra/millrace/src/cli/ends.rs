//! What the process ends with when it was used wrongly or failed.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use super::print::eprint;

/// Exit status of wrong usage, as in BSD's sysexits.h.
const EX_USAGE: u8 = 64;

/// A wrong flag or environment value, found after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Ends after a parse error: help and version are no errors; all others exit 64.
pub fn refuse(mut error: clap::Error) -> ExitCode {
    let of_database = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(argument)) if argument.starts_with("--database-url")
    );
    if of_database && error.get(ContextKind::InvalidValue).is_some() {
        // There is a password in it.
        let hidden = ContextValue::String("(not shown)".into());
        error.insert(ContextKind::InvalidValue, hidden);
    }
    let error = &error;
    let _ = error.print();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return ExitCode::SUCCESS;
    }
    if let Some(variable) = variable_of(error) {
        eprint(&format!(
            "the value comes from the environment variable {}",
            variable.display()
        ));
    }
    ExitCode::from(EX_USAGE)
}

/// Ends after a failure: wrong usage exits 64, everything else 1.
pub fn fail(failure: &anyhow::Error) -> ExitCode {
    eprint(&format!("error: {}", chain_of(failure)));
    let is_usage = failure
        .chain()
        .any(<dyn std::error::Error + 'static>::is::<Usage>);
    if is_usage {
        ExitCode::from(EX_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The failure and its causes, each said once: many libraries repeat their cause in their own text.
fn chain_of(failure: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in failure.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    for cause in failure.chain() {
        if let Some(sqlx::Error::Database(error)) = cause.downcast_ref() {
            // With the line of the server's source.
            text = text.replace(&error.to_string(), error.message());
        }
    }
    text
}

/// The environment variable that an invalid value came from, if it was not given as a flag.
fn variable_of(error: &clap::Error) -> Option<OsString> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument
        .split([' ', '='])
        .next()?
        .trim_start_matches('-')
        .to_owned();
    let given = format!("--{flag}");
    let is_given = |argument: OsString| {
        let text = argument.to_string_lossy();
        text == given || text.starts_with(&format!("{given}="))
    };
    if std::env::args_os().any(is_given) {
        return None;
    }
    let command = Cli::command();
    let mut commands = vec![&command];
    while let Some(command) = commands.pop() {
        let named = command
            .get_arguments()
            .find(|a| a.get_long() == Some(&flag));
        if let Some(variable) = named.and_then(clap::Arg::get_env) {
            return std::env::var_os(variable).map(|_| variable.to_owned());
        }
        commands.extend(command.get_subcommands());
    }
    None
}
