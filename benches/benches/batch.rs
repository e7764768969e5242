//! What a batch costs the ledger without the database: decode with routing, decide, plan with the chain,
//! COPY encoding. 5,000 records of one partition, as in a full batch.

mod sample;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_ledger::chain::GENESIS;
use millrace_ledger::pipeline::decode::{Culprits, candidates, decode};
use millrace_ledger::pipeline::plan::{Decided, plan};
use millrace_ledger::record::BATCH_RECORDS_MAX;
use millrace_ledger::store::Position;
use millrace_ledger::store::copy::Rows;
use millrace_rules::{Book, Candidate, Content, Currency, Funds, Limit, Transfer, decide};

/// When the batch is decided, microseconds since 1970.
const RECORDED_AT: i64 = 1_767_225_700_000_000;

fn batches(criterion: &mut Criterion) {
    let transactions = sample::transactions(BATCH_RECORDS_MAX);
    let mut intake = sample::intake(&transactions);
    let batch = sample::batch(&mut intake, BATCH_RECORDS_MAX);
    let culprits = Culprits::new();
    let decoded = decode(&batch, sample::PARTITIONS, &culprits);
    let candidates_of = || candidates(&batch, &decoded);
    let candidates = candidates_of();

    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(BATCH_RECORDS_MAX as u64));
    group.bench_function("decode, validate, route", |b| {
        b.iter(|| decode(&batch, sample::PARTITIONS, &culprits));
    });
    group.bench_function("candidates (digest)", |b| b.iter(candidates_of));
    for (name, book) in [
        ("decide, no limits", Book::default()),
        ("decide, limits, funds known", limited(&candidates)),
        ("decide, all duplicates", known(&candidates)),
    ] {
        let decisions = decide(&book, &candidates);
        assert!(decisions.short.is_empty(), "{name}");
        group.bench_function(name, |b| b.iter(|| decide(&book, &candidates)));
    }

    let decisions = decide(&Book::default(), &candidates);
    let input = Decided {
        batch: &batch,
        decoded: &decoded,
        candidates: &candidates,
        decisions: &decisions,
    };
    let positions = [position()];
    group.bench_function("plan and chain", |b| {
        b.iter(|| plan(input, &positions, RECORDED_AT));
    });

    let outcome = plan(input, &positions, RECORDED_AT);
    assert_eq!(outcome.ledger.len(), BATCH_RECORDS_MAX);
    let slices = vec![Some(1); outcome.balances.len()];
    let mut rows = Rows::default();
    group.bench_function("COPY encoding", |b| {
        b.iter(|| {
            rows.clear();
            rows.ledger(&outcome.ledger, RECORDED_AT, &slices);
            rows.as_bytes().len()
        });
    });
    group.finish();
}

/// Every account has a limit of 0, and money for everything, as a lane remembers it.
fn limited<'a>(candidates: &[Candidate<'a>]) -> Book<'a> {
    let mut book = Book::default();
    book.default_limits.insert(None, Limit::Overdraft(0));
    let eur = Currency::parse("EUR").expect("a currency");
    let funds = Funds {
        balance: 1_000_000_000,
        fresh: false,
    };
    for transfer in transfers(candidates) {
        for account in [transfer.debit, transfer.credit] {
            book.funds.insert((account.as_str(), eur), funds);
        }
    }
    book
}

/// Every id has its verdict already.
fn known<'a>(candidates: &[Candidate<'a>]) -> Book<'a> {
    let mut book = Book::default();
    let ids = transfers(candidates).map(|transfer| (transfer.id, transfer.digest));
    book.known.extend(ids);
    book
}

fn transfers<'a>(candidates: &[Candidate<'a>]) -> impl Iterator<Item = Transfer<'a>> {
    candidates.iter().map(|candidate| match candidate.content {
        Content::Transfer(transfer) => transfer,
        Content::Refused(_) | Content::Parked(_) => unreachable!("all are valid"),
    })
}

/// Where an empty partition stands.
fn position() -> Position {
    Position {
        partition: 0,
        incarnation: 1,
        position: 0,
        next_seq: 0,
        next_batch: 0,
        chain_head: GENESIS,
        policy_version: 0,
        parked_open: 0,
        anchor: None,
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = batches
}
criterion_main!(benches);
