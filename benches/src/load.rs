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
    /// Opening deposit by account; empty where there are none.
    deposits: BTreeMap<String, i64>,
    /// What the generator gives: that drained before, then that measured.
    workloads: Vec<Workload>,
    /// The sum of all amounts, in minor units.
    pub amounts: i128,
}

impl Load {
    /// The opening deposits for what the first step publishes, which `grow` then adds.
    pub fn new(parameters: &Parameters) -> anyhow::Result<Self> {
        let mut deposits: BTreeMap<String, i64> = BTreeMap::new();
        if parameters.is_funded() {
            for workload in [parameters.existing(0), parameters.measured()] {
                for transaction in workload.transactions()? {
                    let debit = &transaction.debit_account;
                    if is_funded(debit) {
                        *deposits.entry(debit.to_string()).or_default() +=
                            transaction.amount.minor_units();
                    }
                }
            }
        }
        Ok(Self {
            amounts: deposits.values().copied().map(i128::from).sum(),
            deposits,
            workloads: Vec::new(),
        })
    }

    /// Adds the next step of a ledger that grows: what is missing of the rows that are to be there before,
    /// which it gives, and what is measured then.
    pub fn grow(&mut self, parameters: &Parameters) -> anyhow::Result<Workload> {
        let there = self.count() - self.deposits.len() as u64;
        let existing = parameters.existing(there);
        for workload in [existing.clone(), parameters.measured()] {
            let amounts = workload.transactions()?.map(|t| t.amount.minor_units());
            self.amounts += amounts.map(i128::from).sum::<i128>();
            self.workloads.push(workload);
        }
        Ok(existing)
    }

    /// How many are published.
    pub fn count(&self) -> u64 {
        let generated: u64 = self.workloads.iter().map(|workload| workload.count).sum();
        self.deposits.len() as u64 + generated
    }

    /// How many of them before those that are measured last.
    pub fn before(&self) -> u64 {
        let measured = self.workloads.last().map_or(0, |workload| workload.count);
        self.count() - measured
    }

    /// Publishes opening deposits, where there are any.
    pub async fn publish_deposits(&self, settings: &Settings) -> anyhow::Result<()> {
        if self.deposits.is_empty() {
            return Ok(());
        }
        self.publish_each_deposit(settings).await
    }

    /// The amounts of the transactions with these ids, added up, if all of them were published and each
    /// could be refused for lack of funds: its debit account has no opening deposit.
    pub fn rejected_amounts(&self, ids: &HashSet<Uuid>) -> anyhow::Result<i128> {
        let mut amounts = 0;
        let mut found = 0;
        for transaction in self.generated()?.filter(|t| ids.contains(&t.id)) {
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

    fn generated(&self) -> anyhow::Result<impl Iterator<Item = Transaction<'static>>> {
        let each = self.workloads.iter().map(Workload::transactions);
        let each: Vec<_> = each.collect::<Result<_, _>>()?;
        Ok(each.into_iter().flatten())
    }

    async fn publish_each_deposit(&self, settings: &Settings) -> anyhow::Result<()> {
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

/// Publishes a workload by the command, which gives the same transactions as the library.
pub async fn generate(
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
    millrace.run(&arguments, environment).await
}
