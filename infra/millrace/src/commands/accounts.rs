//! `millrace accounts`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millrace_ledger::store::policies::{self, Policy};
use millrace_rules::account::ACCOUNT_PATTERN;
use millrace_rules::{AccountId, Currency, Limit, Status};

use crate::cli::{Database, Usage, print};

/// What to do with accounts' policies.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  millrace accounts default --overdraft-limit 0
  millrace accounts set alice --overdraft-limit 50000 --currency EUR
  millrace accounts set alice --status frozen
  millrace accounts show alice")]
pub enum Accounts {
    /// Set what one account may do.
    Set(Set),
    /// Set the overdraft limit of all accounts that have none of their own.
    Default(Default),
    /// Show what is set.
    Show(Show),
}

/// Flags of `millrace accounts set`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
#[command(
    after_help = "A frozen account takes credits only, a closed one neither. Limits are in minor units: with \
0 the balance never goes below zero. They count from the next batch of the account's partition on.

Examples:
  millrace accounts set alice --overdraft-limit 50000 --currency EUR
  millrace accounts set alice --status frozen"
)]
pub struct Set {
    /// The account.
    #[arg(value_parser = account)]
    account: AccountId<'static>,
    #[command(flatten)]
    database: Database,
    /// The currency that the limit is for [default: all without a limit of their own].
    #[arg(long, value_parser = currency, requires = "overdraft_limit")]
    currency: Option<Currency>,
    /// How far below zero the balance may go: minor units, or unlimited.
    #[arg(long, group = "what", value_parser = limit, allow_negative_numbers = true)]
    overdraft_limit: Option<Limit>,
    /// open, frozen or closed.
    #[arg(long, group = "what", value_parser = status)]
    status: Option<Status>,
}

/// Flags of `millrace accounts default`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  millrace accounts default --overdraft-limit 0")]
pub struct Default {
    #[command(flatten)]
    database: Database,
    /// The currency that the limit is for [default: all without a limit of their own].
    #[arg(long, value_parser = currency)]
    currency: Option<Currency>,
    /// How far below zero balances may go: minor units, or unlimited.
    #[arg(long, value_parser = limit, allow_negative_numbers = true)]
    overdraft_limit: Limit,
}

/// Flags of `millrace accounts show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millrace accounts show
  millrace accounts show alice")]
pub struct Show {
    /// The account [default: everything that is set].
    #[arg(value_parser = account)]
    account: Option<AccountId<'static>>,
    #[command(flatten)]
    database: Database,
}

/// Sets or shows.
pub async fn run(accounts: &Accounts) -> anyhow::Result<ExitCode> {
    match accounts {
        Accounts::Set(set) => run_set(set).await?,
        Accounts::Default(default) => {
            let mut connection = default.database.connect_migrated().await?;
            let Default {
                currency,
                overdraft_limit,
                ..
            } = default;
            policies::set_default_limit(&mut connection, *currency, *overdraft_limit).await?;
            print("set for all accounts without a limit of their own");
        }
        Accounts::Show(show) => {
            let mut connection = show.database.connect_migrated().await?;
            let found = policies::show(&mut connection, show.account.as_ref()).await?;
            match &show.account {
                Some(account) if found.iter().all(|policy| policy.account == "*") => {
                    print(&format!("{account}\topen, and nothing else of its own"));
                }
                None if found.is_empty() => {
                    print("nothing is set: accounts are open and unlimited");
                }
                _ => {}
            }
            found.iter().for_each(print_policy);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_set(set: &Set) -> anyhow::Result<()> {
    if set.account.is_external() && set.overdraft_limit.is_some() {
        let refused = policies::Error::External(set.account.to_string());
        return Err(Usage(refused.to_string()).into());
    }
    let mut connection = set.database.connect_migrated().await?;
    let limit = set.overdraft_limit.map(|limit| (set.currency, limit));
    policies::set(&mut connection, &set.account, limit, set.status).await?;
    print(&format!("set for {}", set.account));
    Ok(())
}

fn print_policy(policy: &Policy) {
    let account = if policy.account == "*" {
        "(all others)"
    } else {
        &policy.account
    };
    let currency = policy.currency.as_deref().unwrap_or_default();
    let currency = if currency == "*" { "(all)" } else { currency };
    match (policy.limit, policy.status) {
        (Some(Limit::Unlimited), _) => {
            print(&format!("{account}\toverdraft limit {currency}\tunlimited"));
        }
        (Some(Limit::Overdraft(limit)), _) => {
            print(&format!("{account}\toverdraft limit {currency}\t{limit}"));
        }
        (None, Some(status)) => print(&format!("{account}\tstatus\t{}", status.as_str())),
        (None, None) => {}
    }
}

fn account(text: &str) -> Result<AccountId<'static>, String> {
    AccountId::parse(text.to_owned().into())
        .map_err(|_| format!("an account fits {ACCOUNT_PATTERN}"))
}

fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).ok_or_else(|| "not an ISO 4217 code with minor units".into())
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == "unlimited" {
        return Ok(Limit::Unlimited);
    }
    match text.parse() {
        Ok(limit @ 0..) => Ok(Limit::Overdraft(limit)),
        _ => Err("0 or more minor units, or unlimited".into()),
    }
}

fn status(text: &str) -> Result<Status, String> {
    Status::from_name(text).ok_or_else(|| "open, frozen or closed".into())
}
