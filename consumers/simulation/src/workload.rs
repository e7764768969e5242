//! What is sent: few accounts, so that everything meets everything.

use std::rc::Rc;

use millrace_rules::{AccountId, Amount, Currency, ParkReason, Reason};
use millrace_schemas::key::Key;
use millrace_schemas::{ContentType, Transaction, codec, partition_of};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use uuid::Uuid;

/// The amount that the simulated database refuses in a row of the ledger.
pub const POISON_AMOUNT: i64 = 666;

/// Offsets in the log are for one group of records at a time; it has at most so many.
const GROUP_MAX: usize = 24;

/// One record, and what it was made to be.
#[derive(Debug)]
pub(crate) struct Sent {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Option<&'static [u8]>)>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub content: Sense,
}

/// What a record says, known without reading it.
#[derive(Debug)]
pub(crate) enum Sense {
    Transfer(Box<Move>),
    Refused(Reason),
    Parked(ParkReason),
}

/// A valid transaction in its right place.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub id: [u8; 16],
    pub digest: [u8; 32],
    pub debit: Rc<str>,
    pub credit: Rc<str>,
    pub amount: i64,
    pub currency: Currency,
}

/// How one run's records are.
#[derive(Debug)]
pub(crate) struct Workload {
    partitions: i32,
    accounts: Vec<Rc<str>>,
    currencies: Vec<Currency>,
    /// How many records are still to come.
    left: usize,
    /// Per thousand records.
    garbage: u32,
    poison: u32,
    repeats: u32,
    conflicts: u32,
    refused: u32,
    holes: u32,
    past: Vec<Transaction<'static>>,
}

impl Workload {
    pub fn draw(random: &mut SmallRng) -> Self {
        let internal = random.random_range(2..9);
        let mut accounts: Vec<Rc<str>> = (0..internal).map(|n| format!("a{n}").into()).collect();
        accounts.extend(["external:x".into(), "external:y".into()]);
        let currencies = ["EUR", "USD", "JPY"]
            .into_iter()
            .filter_map(Currency::parse);
        let count = random.random_range(1..4);
        let mut seldom = |most| {
            if random.random_bool(0.5) {
                random.random_range(0..=most)
            } else {
                0
            }
        };
        Self {
            partitions: 0,
            accounts,
            currencies: currencies.take(count).collect(),
            left: 0,
            garbage: seldom(40),
            poison: seldom(30),
            repeats: seldom(300),
            conflicts: seldom(100),
            refused: seldom(80),
            holes: seldom(200),
            past: Vec::new(),
        }
        .sized(random)
    }

    fn sized(mut self, random: &mut SmallRng) -> Self {
        self.partitions = random.random_range(1..6);
        self.left = random.random_range(40..400);
        self
    }

    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    pub fn accounts(&self) -> &[Rc<str>] {
        &self.accounts
    }

    pub fn currencies(&self) -> &[Currency] {
        &self.currencies
    }

    /// More is to come.
    pub fn send_more(&mut self, count: usize) {
        self.left += count;
    }

    /// Whether nothing more is to come.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// The next records and holes, each with its partition.
    pub fn next(&mut self, random: &mut SmallRng, now_ms: i64) -> Vec<(i32, Option<Rc<Sent>>)> {
        let count = random.random_range(1..=GROUP_MAX).min(self.left);
        self.left -= count;
        let mut group = Vec::with_capacity(count);
        for _ in 0..count {
            let (partition, sent) = self.one(random, now_ms);
            group.push((partition, Some(Rc::new(sent))));
            while random.random_range(0..1000) < self.holes {
                group.push((random.random_range(0..self.partitions), None));
            }
        }
        group
    }

    fn one(&mut self, random: &mut SmallRng, now_ms: i64) -> (i32, Sent) {
        let timestamp = random.random_bool(0.95).then_some(now_ms);
        if random.random_range(0..1000) < self.garbage {
            return self.garbage(random, timestamp);
        }
        let transaction = self.transaction(random);
        let json = random.random_bool(0.3);
        let (key, home) = Key::of(&transaction)
            .with_bytes(|key| (key.to_vec(), partition_of(key, self.partitions)));
        let mut sent = Sent {
            content: Sense::Transfer(Box::new(Move::of(&transaction))),
            ..encoded(&transaction, json, key, timestamp)
        };
        if random.random_range(0..1000) < self.refused {
            return self.refused(random, &transaction, sent, home);
        }
        if transaction.amount.minor_units() == POISON_AMOUNT {
            sent.headers.push(("note", None));
        }
        self.past.push(transaction);
        (home, sent)
    }

    /// A new transaction, a retry of one, or another one under its id.
    fn transaction(&self, random: &mut SmallRng) -> Transaction<'static> {
        let chance = random.random_range(0..1000);
        if !self.past.is_empty() && chance < self.repeats + self.conflicts {
            // Of the last ones, so that it may be in the same batch.
            let from = if random.random_bool(0.7) {
                self.past.len().saturating_sub(8)
            } else {
                0
            };
            let past = &self.past[random.random_range(from..self.past.len())];
            if chance < self.repeats {
                return past.clone();
            }
            return Transaction {
                id: past.id,
                ..self.fresh(random)
            };
        }
        self.fresh(random)
    }

    fn fresh(&self, random: &mut SmallRng) -> Transaction<'static> {
        let debit = self.account(random);
        let mut credit = self.account(random);
        while credit == debit {
            credit = self.account(random);
        }
        let amount = if random.random_range(0..1000) < self.poison {
            POISON_AMOUNT
        } else if random.random_range(0..500) == 0 {
            Amount::MAX
        } else {
            random.random_range(1..=100)
        };
        let currency = self.currencies[random.random_range(0..self.currencies.len())];
        Transaction {
            id: Uuid::from_u128(random.random::<u128>() | 1),
            kind: "payment".into(),
            debit_account: account_id(&debit),
            credit_account: account_id(&credit),
            amount: Amount::new(amount).expect("amounts are drawn in their range"),
            currency,
            occurred_at: 1_700_000_000_000_000 + random.random_range(0..1_000_000),
            reference: "".into(),
            source: "simulation".into(),
            metadata: millrace_schemas::wire::Metadata::default(),
        }
    }

    /// One of the accounts; the first one is hot.
    fn account(&self, random: &mut SmallRng) -> Rc<str> {
        let place = if random.random_bool(0.3) {
            0
        } else {
            random.random_range(0..self.accounts.len())
        };
        Rc::clone(&self.accounts[place])
    }

    fn garbage(&self, random: &mut SmallRng, timestamp: Option<i64>) -> (i32, Sent) {
        let account = self.account(random);
        let key = random.random_bool(0.7).then(|| account.as_bytes().to_vec());
        let partition = match &key {
            Some(key) if random.random_bool(0.9) => partition_of(key, self.partitions),
            _ => random.random_range(0..self.partitions),
        };
        let (value, reason) = match random.random_range(0..3) {
            0 => (None, ParkReason::Undecodable),
            1 => (Some(b"\0garbage".to_vec()), ParkReason::UnknownSchema),
            _ => (
                Some(b"\xc3\x01unknown!rest".to_vec()),
                ParkReason::UnknownSchema,
            ),
        };
        let value = value.map(|value| {
            if reason == ParkReason::UnknownSchema && random.random_bool(0.5) {
                return b"neither of them".to_vec();
            }
            value
        });
        let reason = match value.as_deref() {
            Some(b"neither of them") | None => ParkReason::Undecodable,
            _ => reason,
        };
        let sent = Sent {
            key,
            value,
            headers: vec![("note", Some(b"x")), ("empty", None)],
            timestamp,
            content: Sense::Parked(reason),
        };
        (partition, sent)
    }

    /// The same record with something that no retry mends.
    fn refused(
        &self,
        random: &mut SmallRng,
        transaction: &Transaction<'_>,
        sent: Sent,
        home: i32,
    ) -> (i32, Sent) {
        let choice = random.random_range(0..3);
        if choice == 0 && self.partitions > 1 {
            let elsewhere = (home + random.random_range(1..self.partitions)) % self.partitions;
            let content = Sense::Refused(Reason::Misrouted);
            return (elsewhere, Sent { content, ..sent });
        }
        if choice == 1 {
            let key = random.random_bool(0.5).then(|| b"another key".to_vec());
            let content = Sense::Refused(Reason::Misrouted);
            return (
                home,
                Sent {
                    key,
                    content,
                    ..sent
                },
            );
        }
        let json = codec::encode_json(transaction);
        let currency = format!("\"currency\":\"{}\"", transaction.currency.code());
        let sent = Sent {
            value: Some(json.replace(&currency, "\"currency\":\"QQQ\"").into_bytes()),
            headers: vec![JSON],
            content: Sense::Refused(Reason::InvalidCurrency),
            ..sent
        };
        (home, sent)
    }
}

const JSON: (&str, Option<&[u8]>) = (ContentType::HEADER, Some(b"application/json"));

fn encoded(
    transaction: &Transaction<'_>,
    json: bool,
    key: Vec<u8>,
    timestamp: Option<i64>,
) -> Sent {
    let (value, headers) = if json {
        (codec::encode_json(transaction).into_bytes(), vec![JSON])
    } else {
        let mut value = Vec::new();
        codec::encode(transaction, &mut value);
        (value, Vec::new())
    };
    Sent {
        key: Some(key),
        value: Some(value),
        headers,
        timestamp,
        content: Sense::Refused(Reason::InvalidId),
    }
}

fn account_id(id: &str) -> AccountId<'static> {
    AccountId::parse(id.to_owned().into()).expect("account names are valid")
}

impl Move {
    fn of(transaction: &Transaction<'_>) -> Self {
        Self {
            id: transaction.id.into_bytes(),
            digest: transaction.digest(),
            debit: transaction.debit_account.as_str().into(),
            credit: transaction.credit_account.as_str().into(),
            amount: transaction.amount.minor_units(),
            currency: transaction.currency,
        }
    }
}
