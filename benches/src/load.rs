//! What is published, and what must come out of it: computed from the generator's library, never from
//! the database.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use millrace_generator::Workload;
use millrace_publisher::{Publisher, Settings};
use millrace_rules::{AccountId, Amount, Currency};
use millrace_schemas::wire::Metadata;
use millrace_schemas::{Transaction, partition_of};
use uuid::Uuid;

use crate::case::{Parameters, deposit_micros};
use crate::programs::Millrace;

/// Every how many-th account, by its hash, has no opening deposit. A prime: the hash is also that of the
/// partition, and these accounts shall not be in a few partitions.
const UNFUNDED_EVERY: i32 = 101;

/// Everything that a run publishes, in order.
#[derive(Debug)]
pub struct Load {
    parameters: Parameters,
    /// Opening deposit by account; empty where there are none.
    deposits: BTreeMap<String, i64>,
    /// The sum of all amounts, in minor units.
    pub amounts: i128,
}

impl Load {
    /// Adds up what will be published.
    pub fn new(parameters: &Parameters) -> anyhow::Result<Self> {
        let mut deposits = BTreeMap::new();
        let mut amounts = 0;
        for transaction in all(parameters)? {
            let amount = transaction.amount.minor_units();
            amounts += i128::from(amount);
            let debit = &transaction.debit_account;
            if parameters.is_funded() && is_funded(debit) {
                *deposits.entry(debit.to_string()).or_default() += amount;
            }
        }
        amounts += deposits.values().copied().map(i128::from).sum::<i128>();
        Ok(Self {
            parameters: parameters.clone(),
            deposits,
            amounts,
        })
    }

    /// How many are published before the measured ones.
    pub fn before(&self) -> u64 {
        self.deposits.len() as u64 + self.parameters.existing_rows
    }

    /// Publishes what comes before the measured transactions: opening deposits, then those to be there
    /// already.
    pub async fn publish_before(
        &self,
        settings: &Settings,
        millrace: &Millrace,
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<()> {
        if !self.deposits.is_empty() {
            self.publish_deposits(settings).await?;
        }
        if self.parameters.existing_rows > 0 {
            generate(&self.parameters.existing(), millrace, environment)?;
        }
        Ok(())
    }

    /// Publishes the measured transactions.
    pub fn publish_measured(
        &self,
        millrace: &Millrace,
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<()> {
        generate(&self.parameters.measured(), millrace, environment)
    }

    /// The amounts of the transactions with these ids, added up, if all of them were published and each
    /// could be refused for lack of funds: its debit account has no opening deposit.
    pub fn rejected_amounts(&self, ids: &HashSet<Uuid>) -> anyhow::Result<i128> {
        let mut amounts = 0;
        let mut found = 0;
        for transaction in all(&self.parameters)?.filter(|t| ids.contains(&t.id)) {
            let account = &transaction.debit_account;
            ensure!(
                !is_funded(account),
                "{} was rejected, and {account} had money for it",
                transaction.id
            );
            amounts += i128::from(transaction.amount.minor_units());
            found += 1;
        }
        ensure!(
            found == ids.len(),
            "{} rejected transactions, and only {found} of them were published",
            ids.len()
        );
        Ok(amounts)
    }

    async fn publish_deposits(&self, settings: &Settings) -> anyhow::Result<()> {
        let publisher = Publisher::connect(settings).await.context("publishing")?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        for (place, (account, amount)) in (0..).zip(&self.deposits) {
            let deposit = deposit(place, account, *amount)?;
            let acknowledged = Arc::clone(&acknowledged);
            let on_delivery = move |answer: Result<_, _>| {
                acknowledged.fetch_add(u64::from(answer.is_ok()), Ordering::Relaxed);
            };
            publisher.publish_with(&deposit, on_delivery).await?;
        }
        publisher.drain().await;
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let count = self.deposits.len() as u64;
        ensure!(
            acknowledged == count,
            "Kafka acknowledged {acknowledged} of {count} opening deposits"
        );
        Ok(())
    }
}

fn deposit(place: u64, account: &str, amount: i64) -> anyhow::Result<Transaction<'_>> {
    let occurred_at = deposit_micros(place);
    let account_id = |id| AccountId::parse(Cow::Borrowed(id)).ok();
    Ok(Transaction {
        id: deposit_id(occurred_at, place),
        kind: Cow::Borrowed("deposit"),
        debit_account: account_id("external:bench").context("a constant")?,
        credit_account: account_id(account).context("an account of the generator")?,
        amount: Amount::new(amount).context("an opening deposit beyond 10^15")?,
        currency: Currency::parse("EUR").context("a constant")?,
        occurred_at,
        reference: Cow::Borrowed("opening deposit"),
        source: Cow::Borrowed("bench"),
        metadata: Metadata::default(),
    })
}

/// A version 7 id: the time, and the place for what is otherwise random.
fn deposit_id(micros: i64, place: u64) -> Uuid {
    let mut unique = [0; 10];
    unique[2..].copy_from_slice(&place.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(micros.unsigned_abs() / 1_000, &unique).into_uuid()
}

/// Whether an account has an opening deposit as large as all its debits together: then each of them is
/// covered, however partitions are applied. One in 101 has none and lives on what it receives.
fn is_funded(account: &AccountId<'_>) -> bool {
    !account.is_external() && partition_of(account.as_str().as_bytes(), UNFUNDED_EVERY) != 0
}

/// The generated transactions: those there before, then those measured.
fn all(parameters: &Parameters) -> anyhow::Result<impl Iterator<Item = Transaction<'static>>> {
    let existing = parameters.existing().transactions()?;
    let measured = parameters.measured().transactions()?;
    Ok(existing.chain(measured))
}

/// The same workload by the command. It gives the same transactions as the library.
fn generate(
    workload: &Workload,
    millrace: &Millrace,
    environment: &[(&'static str, String)],
) -> anyhow::Result<()> {
    let flags = [
        ("--count", workload.count.to_string()),
        ("--accounts", workload.accounts.to_string()),
        ("--skew", workload.skew.to_string()),
        ("--ids", workload.id_version.to_string()),
        ("--seed", workload.seed.to_string()),
        ("--external-share", workload.external_share.to_string()),
        ("--start", workload.start_micros.to_string()),
    ];
    let mut arguments = vec!["generate".to_owned()];
    for (flag, value) in flags {
        arguments.extend([flag.to_owned(), value]);
    }
    millrace.run(&arguments, environment)
}
