//! Publishing to librdkafka's own mock broker: receipts, failures, stopping.

use std::fmt::Write as _;

use millrace_publisher::{Publisher, Settings};

use super::*;
use crate::{End, Exit};

async fn publisher(properties: &[(&str, &str)]) -> Publisher {
    let mut settings = Settings::new("mock", "transactions.submitted");
    settings.in_flight_max = 1_000;
    settings.properties = [
        ("test.mock.num.brokers", "1"),
        ("allow.auto.create.topics", "true"),
    ]
    .iter()
    .chain(properties)
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect();
    Publisher::connect(&settings).await.unwrap()
}

fn csv(rows: usize) -> String {
    let mut csv = String::from("no,day,amount\n");
    for i in 0..rows {
        writeln!(csv, "{i},2024-01-01,1.00").unwrap();
    }
    csv
}

#[tokio::test]
async fn every_row_is_acknowledged() {
    let setup = Setup::new();
    let publisher = publisher(&[]).await;
    let input = setup.write("in.csv", csv(5_000) + "x,y,z\n");
    let import = prepare(&setup.csv_options(&input)).unwrap();
    let summary = import
        .run(Destination::Topic(&publisher), std::future::pending())
        .await;
    assert_eq!(
        (summary.rows, summary.acknowledged),
        (5_001, 5_000),
        "{summary}"
    );
    assert_eq!((summary.refused, summary.failed), (1, 0));
    assert_eq!(
        (summary.end.clone(), summary.exit()),
        (End::Complete, Exit::RowsRefused)
    );
    assert_eq!(publisher.totals().acknowledged, 5_000);
}

#[tokio::test]
async fn a_stop_waits_for_what_was_handed_in() {
    let setup = Setup::new();
    let publisher = publisher(&[]).await;
    let input = setup.write("in.csv", csv(5_000));
    let import = prepare(&setup.csv_options(&input)).unwrap();
    let summary = import
        .run(Destination::Topic(&publisher), std::future::ready(()))
        .await;
    assert_eq!(
        (summary.end.clone(), summary.exit()),
        (End::Stopped, Exit::Incomplete)
    );
    assert_eq!((summary.rows, summary.acknowledged), (0, 0));
}

#[tokio::test]
async fn a_stop_on_the_way_loses_no_answer() {
    let setup = Setup::new();
    let publisher = publisher(&[("test.mock.broker.rtt", "100")]).await;
    let input = setup.write("in.csv", csv(20_000));
    let import = prepare(&setup.csv_options(&input)).unwrap();
    let stop = async {
        while publisher.totals().acknowledged == 0 {
            tokio::task::yield_now().await;
        }
    };
    let summary = import.run(Destination::Topic(&publisher), stop).await;
    assert_eq!(summary.end, End::Stopped, "{summary}");
    assert!((1..20_000).contains(&summary.rows), "{summary}");
    assert_eq!(summary.rows, summary.acknowledged);
    assert_eq!(summary.acknowledged, publisher.totals().acknowledged);
}

#[tokio::test]
async fn a_row_that_kafka_does_not_take_is_named_and_the_others_go_on() {
    let setup = Setup::new();
    let map = format!("{MAP}metadata = {{ text = \"{{text}}\" }}\n");
    setup.write("map.toml", map);
    let publisher = publisher(&[("message.max.bytes", "1000")]).await;
    let long = "x".repeat(2_000);
    let rows = format!("1,2024-01-01,1,\n2,2024-01-01,1,{long}\n3,2024-01-01,1,\n");
    let input = setup.write("in.csv", format!("no,day,amount,text\n{rows}"));
    let import = prepare(&setup.csv_options(&input)).unwrap();
    let summary = import
        .run(Destination::Topic(&publisher), std::future::pending())
        .await;
    assert_eq!(
        (summary.rows, summary.acknowledged, summary.failed),
        (3, 2, 1),
        "{summary}"
    );
    assert_eq!(
        (summary.end.clone(), summary.exit()),
        (End::Complete, Exit::Incomplete)
    );
    assert!(
        summary
            .to_string()
            .contains("line 3: not_delivered: kafka does not take this record: ")
    );
    assert!(
        setup.refused().contains("\n3,not_delivered,"),
        "{}",
        setup.refused()
    );
}

#[tokio::test]
async fn rows_that_nobody_acknowledges_are_all_named_and_end_the_import() {
    let setup = Setup::new();
    // Every answer comes later than anybody waits for it.
    let slow = [
        ("test.mock.broker.rtt", "1000"),
        ("delivery.timeout.ms", "100"),
    ];
    let publisher = publisher(&slow).await;
    let input = setup.write("in.csv", csv(20_000));
    let import = prepare(&setup.csv_options(&input)).unwrap();
    let summary = import
        .run(Destination::Topic(&publisher), std::future::pending())
        .await;
    assert!((1_000..20_000).contains(&summary.failed), "{summary}");
    assert_eq!(summary.rows, summary.acknowledged + summary.failed);
    let expected = "was not acknowledged: the record was not acknowledged";
    assert!(
        matches!(&summary.end, End::Broken(why) if why.contains(expected)),
        "{summary}"
    );
    assert_eq!(summary.exit(), Exit::Incomplete);
    let refused = setup.refused();
    let named = refused
        .lines()
        .filter(|line| line.contains(",not_delivered,"))
        .count();
    assert_eq!(named as u64, summary.failed);
}
