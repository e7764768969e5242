//! What is asked for.

use std::fmt;

use anyhow::ensure;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// How many accounts and transactions are asked for in turn: more than any cache of the services', and
/// what they touch is a small part of the tables.
const KEYS_MAX: i64 = 20_000;

/// Multiplies turns into keys that look drawn: Knuth's multiplicative hash.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Requests of one kind, or all kinds in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// The balances of an account
    Account,
    /// An account's last transactions
    AccountTransactions,
    /// A transaction
    Transaction,
    /// The report of all days
    DailyTotals,
    /// The report of balances, of one account
    Balances,
    /// All of them in turn
    Mix,
}

/// Accounts and transactions that are there.
#[derive(Debug)]
pub struct Keys {
    accounts: Vec<String>,
    transactions: Vec<Uuid>,
}

impl Endpoint {
    /// All, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::Account,
        Self::AccountTransactions,
        Self::Transaction,
        Self::DailyTotals,
        Self::Balances,
        Self::Mix,
    ];

    /// The path of a turn.
    pub fn path(self, turn: u64, keys: &Keys) -> String {
        let account = || keys.account(turn);
        match self {
            Self::Account => format!("/v1/accounts/{}", account()),
            Self::AccountTransactions => format!("/v1/accounts/{}/transactions", account()),
            Self::Transaction => format!("/v1/transactions/{}", keys.transaction(turn)),
            Self::DailyTotals => "/v1/reports/daily_totals".to_owned(),
            Self::Balances => format!("/v1/reports/balances?account={}", account()),
            Self::Mix => {
                let kinds = Self::ALL.len() as u64 - 1;
                let kind = usize::try_from(turn % kinds).unwrap_or(0);
                Self::ALL[kind].path(turn / kinds, keys)
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "/v1/accounts/{a}",
            Self::AccountTransactions => "/v1/accounts/{a}/transactions",
            Self::Transaction => "/v1/transactions/{id}",
            Self::DailyTotals => "/v1/reports/daily_totals",
            Self::Balances => "/v1/reports/balances?account={a}",
            Self::Mix => "all in turn",
        })
    }
}

impl Keys {
    /// Draws from what is in the ledger, in no order.
    pub async fn draw(connection: &mut PgConnection) -> anyhow::Result<Self> {
        let accounts: Vec<String> = sqlx::query_scalar(
            "select account from (select distinct account from millrace.balances) a
             order by random() limit $1",
        )
        .bind(KEYS_MAX)
        .fetch_all(&mut *connection)
        .await?;
        let transactions: Vec<Uuid> =
            sqlx::query_scalar("select id from millrace.ledger order by random() limit $1")
                .bind(KEYS_MAX)
                .fetch_all(connection)
                .await?;
        ensure!(
            !accounts.is_empty() && !transactions.is_empty(),
            "the ledger is empty"
        );
        Ok(Self {
            accounts,
            transactions,
        })
    }

    fn account(&self, turn: u64) -> &str {
        &self.accounts[place(turn, self.accounts.len())]
    }

    fn transaction(&self, turn: u64) -> Uuid {
        self.transactions[place(turn, self.transactions.len())]
    }
}

fn place(turn: u64, count: usize) -> usize {
    let drawn = turn.wrapping_mul(SPREAD) >> 32;
    usize::try_from(drawn % count as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_mix_is_every_kind_in_turn() {
        let keys = Keys {
            accounts: (0..100).map(|n| format!("account-{n}")).collect(),
            transactions: (0..100).map(Uuid::from_u128).collect(),
        };
        let path = |turn| Endpoint::Mix.path(turn, &keys);
        assert!(path(0).starts_with("/v1/accounts/account-"));
        assert!(path(1).ends_with("/transactions"));
        assert!(path(2).starts_with("/v1/transactions/00000000-"));
        assert_eq!(path(3), "/v1/reports/daily_totals");
        assert!(path(4).starts_with("/v1/reports/balances?account="));
        let drawn: HashSet<_> = (0..1_000).map(|turn| path(5 * turn)).collect();
        assert!(drawn.len() > 80, "{}", drawn.len());
    }
}
