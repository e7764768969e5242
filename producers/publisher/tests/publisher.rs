//! Against a real Kafka: `MILLRACE_BROKERS` says where (`infra/local/up.sh` starts one).
#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot set up fails the test"
)]

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use millrace_publisher::{Error, Publisher, RawRecord, Receipt, Settings};
use millrace_rules::{AccountId, Amount, Currency};
use millrace_schemas::wire::Metadata;
use millrace_schemas::{ContentType, Key, Transaction, decode, partition_of};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

const READ_TIMEOUT: Duration = Duration::from_secs(30);

fn brokers() -> String {
    std::env::var("MILLRACE_BROKERS").expect(
        "MILLRACE_BROKERS is not set: start Kafka with infra/local/up.sh and load the env file it names",
    )
}

/// Settings for a new topic of its own.
async fn topic(partitions: i32, config: &[(&str, &str)]) -> Settings {
    let name = format!("publisher-test-{}", Uuid::new_v4());
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .create()
        .unwrap();
    let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for (name, value) in config {
        topic = topic.set(name, value);
    }
    let results = admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    results[0].as_ref().unwrap();
    Settings::new(brokers(), name)
}

fn with(mut settings: Settings, properties: &[(&str, &str)]) -> Settings {
    for (name, value) in properties {
        settings.properties.push(((*name).into(), (*value).into()));
    }
    settings
}

/// Reads `count` records from the start of all partitions, by (partition, offset).
async fn read(
    settings: &Settings,
    partitions: i32,
    count: usize,
) -> HashMap<Receipt, OwnedMessage> {
    let settings = settings.clone();
    let blocking = move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &settings.brokers)
            .set("group.id", &settings.topic)
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment
                .add_partition_offset(&settings.topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + READ_TIMEOUT;
        let mut records = HashMap::new();
        while records.len() < count {
            assert!(Instant::now() < deadline, "{} of {count}", records.len());
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap().detach();
                let place = Receipt {
                    partition: message.partition(),
                    offset: message.offset(),
                };
                assert!(records.insert(place, message).is_none());
            }
        }
        let more = consumer.poll(Duration::from_millis(200));
        assert!(more.is_none(), "more than {count} records");
        records
    };
    tokio::task::spawn_blocking(blocking).await.unwrap()
}

/// Every third from outside, every seventh between two accounts outside.
fn transaction(number: u64) -> Transaction<'static> {
    let account = |id: String| AccountId::parse(id.into()).unwrap();
    let debit = match number {
        n if n.is_multiple_of(3) || n.is_multiple_of(7) => "external:bank".to_owned(),
        n => format!("debit-{}", n % 50),
    };
    let credit = match number {
        n if n.is_multiple_of(7) => "external:till".to_owned(),
        n => format!("credit-{}", n % 31),
    };
    Transaction {
        id: Uuid::from_u128(1 << 100 | u128::from(number)),
        kind: "transfer".into(),
        debit_account: account(debit),
        credit_account: account(credit),
        amount: Amount::new(100).unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        occurred_at: 1_700_000_000_000_000,
        reference: format!("no. {number}").into(),
        source: "test".into(),
        metadata: Metadata::default(),
    }
}

fn raw(payload: &[u8]) -> RawRecord<'_> {
    RawRecord {
        key: Some(b"k"),
        payload: Some(payload),
        ..RawRecord::default()
    }
}

/// Whether the future waits; looks once.
async fn waits(future: &mut (impl Future + Unpin)) -> bool {
    poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending()))
        .await
}

#[tokio::test]
async fn receipts_are_where_a_consumer_finds_the_records() {
    const COUNT: u64 = 2_000;
    let settings = topic(12, &[]).await;
    let publisher = Publisher::connect(&settings).await.unwrap();
    assert_eq!(publisher.partitions(), 12);
    let transactions: Vec<_> = (1..=COUNT).map(transaction).collect();
    let mut deliveries = Vec::new();
    for transaction in &transactions {
        deliveries.push(publisher.publish(transaction).await.unwrap());
    }
    let totals = publisher.drain().await;
    assert_eq!((totals.acknowledged, totals.failed), (COUNT, 0));
    assert_eq!(publisher.in_flight(), 0);

    let records = read(&settings, 12, transactions.len()).await;
    let mut last = HashMap::new();
    for (transaction, delivery) in transactions.iter().zip(deliveries) {
        let receipt = delivery.await.unwrap();
        let record = &records[&receipt];
        let key = Key::of(transaction).with_bytes(<[u8]>::to_vec);
        assert_eq!(record.key(), Some(&key[..]));
        assert_eq!(receipt.partition, partition_of(&key, 12));
        assert!(record.headers().is_none());
        let wire = decode(record.payload().unwrap(), ContentType::Avro).unwrap();
        assert_eq!(&Transaction::try_from(wire).unwrap(), transaction);
        // Handed in later, stored later.
        let earlier = last.insert(receipt.partition, receipt.offset);
        assert!(earlier.is_none_or(|offset| offset < receipt.offset));
    }
    assert!(last.len() > 6, "{last:?}");
}

#[tokio::test]
async fn partitions_are_those_of_the_schema_crate() {
    let settings = topic(7, &[]).await;
    let publisher = Publisher::connect(&settings).await.unwrap();
    let long = "x".repeat(300);
    for key in ["", "a", "ab", "abc", "abcd", "ключ", "😀", "debit-1", &long] {
        let record = RawRecord {
            key: Some(key.as_bytes()),
            ..raw(b"v")
        };
        let receipt = publisher.publish_raw(record).await.unwrap().await.unwrap();
        assert_eq!(
            receipt.partition,
            partition_of(key.as_bytes(), 7),
            "{key:?}"
        );
    }
}

#[tokio::test]
async fn raw_records_arrive_as_they_are() {
    let settings = topic(3, &[]).await;
    let publisher = Publisher::connect(&settings).await.unwrap();
    let sent = [
        RawRecord {
            headers: &[("content-type", b"application/json"), ("empty", b"")],
            partition: Some(2),
            ..raw(b"\x00\xff")
        },
        RawRecord {
            partition: Some(0),
            ..RawRecord::default()
        },
    ];
    let mut receipts = Vec::new();
    for record in sent {
        receipts.push(publisher.publish_raw(record).await.unwrap().await.unwrap());
    }
    let records = read(&settings, 3, 2).await;
    for (record, receipt) in sent.iter().zip(receipts) {
        let found = &records[&receipt];
        assert_eq!(Some(receipt.partition), record.partition);
        assert_eq!((found.key(), found.payload()), (record.key, record.payload));
        let headers: Vec<_> = found.headers().map_or(Vec::new(), |headers| {
            let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.unwrap().to_vec())
            };
            headers.iter().map(pair).collect()
        });
        let expected = record
            .headers
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()));
        assert_eq!(headers, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn handing_in_waits_while_too_many_are_in_flight() {
    let mut settings = with(topic(1, &[]).await, &[("linger.ms", "2000")]);
    settings.in_flight_max = 10;
    let publisher = Publisher::connect(&settings).await.unwrap();
    for number in 1..=10 {
        drop(publisher.publish(&transaction(number)).await.unwrap());
    }
    assert_eq!(publisher.in_flight(), 10);
    let eleventh = transaction(11);
    let mut waiting = pin!(publisher.publish(&eleventh));
    assert!(waits(&mut waiting).await);
    assert_eq!(publisher.in_flight(), 10);
    // Nobody has to ask for the first ten answers to make room.
    waiting.await.unwrap().await.unwrap();
    assert_eq!(publisher.drain().await.acknowledged, 11);
}

#[tokio::test]
async fn handing_in_waits_while_too_many_bytes_are_in_flight() {
    let properties = [("linger.ms", "500"), ("queue.buffering.max.kbytes", "1000")];
    let settings = with(topic(1, &[]).await, &properties);
    let publisher = Publisher::connect(&settings).await.unwrap();
    // Ten fill the queue.
    let payload = vec![7; 100_000];
    for _ in 0..10 {
        drop(publisher.publish_raw(raw(&payload)).await.unwrap());
    }
    let mut waiting = pin!(publisher.publish_raw(raw(&payload)));
    assert!(waits(&mut waiting).await);
    waiting.await.unwrap().await.unwrap();
    for _ in 0..30 {
        drop(publisher.publish_raw(raw(&payload)).await.unwrap());
    }
    let totals = publisher.drain().await;
    assert_eq!((totals.acknowledged, totals.failed), (41, 0));
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_and_others_go_on() {
    let settings = topic(1, &[]).await;
    let publisher = Publisher::connect(&settings).await.unwrap();
    let before = publisher.publish(&transaction(1)).await.unwrap();
    let large = vec![0; 1_100_000];
    let error = publisher.publish_raw(raw(&large)).await.unwrap_err();
    assert!(matches!(error, Error::FixRecord(_)), "{error:?}");
    let after = publisher.publish(&transaction(2)).await.unwrap();
    before.await.unwrap();
    after.await.unwrap();
    let totals = publisher.drain().await;
    assert_eq!((totals.acknowledged, totals.failed), (2, 1));
    assert!(matches!(totals.first_error, Some(Error::FixRecord(_))));
    assert_eq!(read(&settings, 1, 2).await.len(), 2);
}

#[tokio::test]
async fn a_batch_too_large_for_the_topic_names_the_property() {
    let settings = topic(1, &[("max.message.bytes", "20000")]).await;
    let plain = with(settings.clone(), &[("compression.type", "none")]);
    let publisher = Publisher::connect(&plain).await.unwrap();
    let large = vec![0; 50_000];
    let delivery = publisher.publish_raw(raw(&large)).await.unwrap();
    let error = delivery.await.unwrap_err();
    assert!(matches!(error, Error::Settings(_)), "{error:?}");
    assert!(error.to_string().contains("message.max.bytes"), "{error}");
    publisher
        .publish_raw(raw(b"small"))
        .await
        .unwrap()
        .await
        .unwrap();

    // With the property, batches are smaller and only the record itself is refused.
    let fitting = with(
        plain,
        &[("message.max.bytes", "20000"), ("linger.ms", "100")],
    );
    let publisher = Publisher::connect(&fitting).await.unwrap();
    let error = publisher.publish_raw(raw(&large)).await.unwrap_err();
    assert!(matches!(error, Error::FixRecord(_)), "{error:?}");
    for _ in 0..100 {
        drop(publisher.publish_raw(raw(&large[..1_000])).await.unwrap());
    }
    assert_eq!(publisher.drain().await.acknowledged, 100);
}

#[tokio::test]
async fn a_missing_topic_names_the_command_and_is_not_created() {
    let settings = Settings::new(brokers(), format!("publisher-test-{}", Uuid::new_v4()));
    for _ in 0..2 {
        let error = Publisher::connect(&settings).await.unwrap_err();
        assert!(matches!(error, Error::TopicMissing { .. }), "{error:?}");
        assert!(
            error.to_string().contains("millrace topics create"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_broker_is_an_error_in_bounded_time() {
    // Bound, but nobody listens: no other process can take the port meanwhile.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = Settings::new(closed.local_addr().unwrap().to_string(), "t");
    let start = Instant::now();
    let error = Publisher::connect(&settings).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(start.elapsed() < millrace_publisher::publisher::CONNECT_TIMEOUT * 2);
}

#[tokio::test]
async fn a_wrong_property_is_refused_by_its_name() {
    for (name, value) in [
        ("acks", "1"),
        ("linger.ms", "soon"),
        ("no.such.property", "1"),
    ] {
        let settings = with(Settings::new(brokers(), "t"), &[(name, value)]);
        let error = Publisher::connect(&settings).await.unwrap_err();
        assert!(matches!(error, Error::Settings(_)), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn callbacks_and_clones_share_one_producer() {
    let settings = topic(4, &[]).await;
    let publisher = Publisher::connect(&settings).await.unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel(200);
    let mut tasks = tokio::task::JoinSet::new();
    for half in [0, 100] {
        let (publisher, sender) = (publisher.clone(), sender.clone());
        tasks.spawn(async move {
            for number in half..half + 100 {
                let sender = sender.clone();
                publisher
                    .publish_with(&transaction(number + 1), move |answer| {
                        sender.send((number, answer.unwrap())).unwrap();
                    })
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    // Every callback has returned when the drain has.
    assert_eq!(publisher.drain().await.acknowledged, 200);
    let answers: HashMap<u64, Receipt> = receiver.try_iter().collect();
    assert_eq!(answers.len(), 200);
}
