//! Bytes to valid transactions: each step of the hot path, and apache-avro's decoder beside it.

mod sample;

use std::hint::black_box;
use std::time::Duration;

use apache_avro::{Schema, from_avro_datum, from_value};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_schemas::codec::SCHEMA;
use millrace_schemas::{ContentType, Transaction, Wire, decode};

const RECORDS: usize = 5_000;

/// The marker and the fingerprint before the datum.
const SINGLE_OBJECT_HEADER_BYTES: usize = 10;

fn decoding(criterion: &mut Criterion) {
    let transactions = sample::transactions(RECORDS);
    let values = sample::values(&transactions);
    let wire = |bytes| decode(bytes, ContentType::Avro).expect("our own bytes");
    let valid = |bytes| Transaction::try_from(wire(bytes)).expect("our own transaction");
    let schema = Schema::parse_str(SCHEMA).expect("our own schema");
    let datum = |bytes: &[u8]| {
        let mut datum = &bytes[SINGLE_OBJECT_HEADER_BYTES..];
        from_avro_datum(&schema, &mut datum, None).expect("our own bytes")
    };

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("avro", |b| {
        b.iter(|| values.iter().for_each(|v| drop(black_box(wire(v)))));
    });
    group.bench_function("avro + validate", |b| {
        b.iter(|| values.iter().for_each(|v| drop(black_box(valid(v)))));
    });
    group.bench_function("avro + validate + digest", |b| {
        b.iter(|| {
            for value in &values {
                black_box(valid(value).digest());
            }
        });
    });
    group.bench_function("digest", |b| {
        b.iter(|| {
            for transaction in &transactions {
                black_box(transaction.digest());
            }
        });
    });
    group.bench_function("apache-avro to a value", |b| {
        b.iter(|| values.iter().for_each(|v| drop(black_box(datum(v)))));
    });
    group.bench_function("apache-avro to the same fields", |b| {
        b.iter(|| {
            for value in &values {
                let value = datum(value);
                let wire: Wire<'_> = from_value(&value).expect("the same fields");
                drop(black_box(wire));
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decoding
}
criterion_main!(benches);
