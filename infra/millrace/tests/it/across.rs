//! What does not hold across the databases of a split ledger: ids and funds of the other database.

use crate::process::Replica;
use crate::records::{account_in, publish, transfer};
use crate::split::{Split, federated};

/// Publishes one transaction, waits until it is applied everywhere, and gives the verdicts: all, low, high.
async fn verdicts(
    split: &Split,
    number: u128,
    debit: &str,
    credit: &str,
    amount: i64,
) -> [String; 3] {
    let publisher = split.whole.publisher().await;
    let transaction = transfer(number, debit, credit, amount);
    let sent = publish(&publisher, [&transaction]).await;
    split.drained().await;
    let last = "select name from (
            select partition, log_offset, verdict as code from millrace.ledger
            union all select partition, log_offset, reason from millrace.refused
        ) o join millrace.reasons using (code) where kind = 'verdict' and (partition, log_offset) = ($1, $2)";
    let mut verdicts = [const { String::new() }; 3];
    for (verdict, place) in verdicts.iter_mut().zip(split.places()) {
        let found: Option<String> = sqlx::query_scalar(last)
            .bind(sent[0].partition)
            .bind(sent[0].offset)
            .fetch_optional(&mut place.connect().await)
            .await
            .unwrap();
        *verdict = found.unwrap_or_default();
    }
    verdicts
}

#[tokio::test]
async fn an_id_is_unique_in_each_database_and_not_over_both() {
    let split = Split::new("split-ids", 2).await;
    let _ledgers = split.ledgers(1).await;
    let (alice, bob) = (account_in(0, 2, "alice"), account_in(1, 2, "bob"));
    let publisher = split.whole.publisher().await;
    let first = transfer(1, &alice, "external:out", 10);
    publish(&publisher, [&first, &first]).await;
    split.drained().await;
    // The same content has the same key, partition and database: it is recognised as ever.
    publish(&publisher, [&first]).await;
    split.drained().await;
    let duplicates = "select coalesce(sum(duplicate), 0)::bigint from millrace.batches";
    assert_eq!(split.numbers(duplicates).await, [2, 2, 0]);
    // Other content with a key of the same database is a conflict as ever.
    let verdicts_of = verdicts(&split, 1, &alice, "external:out", 11).await;
    assert_eq!(verdicts_of, ["id_conflict", "id_conflict", ""]);
    // With a key of the other database it is not seen: both are posted.
    let verdicts_of = verdicts(&split, 1, &bob, "external:out", 20).await;
    assert_eq!(verdicts_of, ["id_conflict", "", "posted"]);
    let posted = "select count(*) from reports.transactions";
    assert_eq!(split.numbers(posted).await, [1, 1, 1]);
    split.verify().await;
    // Whoever reads over both sees it.
    let all = federated(&split).await;
    let twice = "select count(*) from (select id from reports.transactions group by id having count(*) > 1) t";
    assert_eq!(all.number(twice).await, 1);
}

/// Alice is at home in the lower half, Bob in the upper one; nobody may go below zero.
struct Funds {
    split: Split,
    _ledgers: [Replica; 3],
    alice: String,
    bob: String,
    next: u128,
}

impl Funds {
    async fn new(name: &str) -> Self {
        let split = Split::new(name, 2).await;
        for place in split.places() {
            let default = ["accounts", "default", "--overdraft-limit", "0"];
            place.run(&default).await.expect(0);
        }
        Self {
            _ledgers: split.ledgers(1).await,
            split,
            alice: account_in(0, 2, "alice"),
            bob: account_in(1, 2, "bob"),
            next: 0,
        }
    }

    /// Moves money; gives the verdicts of the whole and of the half that has decided.
    async fn moves(&mut self, debit: &str, credit: &str, amount: i64) -> (String, String) {
        self.next += 1;
        let named = |name: &str| match name {
            "alice" => self.alice.clone(),
            "bob" => self.bob.clone(),
            other => other.to_owned(),
        };
        let (debit, credit) = (named(debit), named(credit));
        let [whole, low, high] = verdicts(&self.split, self.next, &debit, &credit, amount).await;
        assert!(
            low.is_empty() != high.is_empty(),
            "in one of them: {low:?}, {high:?}"
        );
        (whole, low + &high)
    }

    /// The same, and both must agree to it.
    async fn moves_well(&mut self, debit: &str, credit: &str, amount: i64) {
        let verdicts = self.moves(debit, credit, amount).await;
        assert_eq!(verdicts, ("posted".into(), "posted".into()));
    }
}

const REJECTED: &str = "insufficient_funds";

#[tokio::test]
async fn funds_that_came_through_the_other_database_count_once_they_are_a_limit_or_come_in_two_steps()
 {
    let mut funds = Funds::new("split-funds").await;
    funds.moves_well("external:in", "alice", 100).await;
    funds.moves_well("external:in", "bob", 100).await;
    funds.moves_well("bob", "alice", 50).await;
    // Alice has 150, of which 50 are in the other database.
    let (whole, half) = funds.moves("alice", "external:out", 120).await;
    assert_eq!((&*whole, &*half), ("posted", REJECTED));

    // Her credits elsewhere only rise, so they are a safe lower bound whenever they are read: as a limit here.
    let all = federated(&funds.split).await;
    let alice = funds.alice.clone();
    let elsewhere = "select credits::bigint from ledger_high.balances where account = ";
    let limit = all.number(&format!("{elsewhere}'{alice}'")).await;
    assert_eq!(limit, 50);
    let limit = limit.to_string();
    let allow = ["accounts", "set", &alice, "--overdraft-limit", &limit];
    let [low, high] = &funds.split.halves;
    low.run(&allow).await.expect(0);
    // Where none of her debits are decided a limit would be one in name alone.
    let ended = high.run(&allow).await.expect(1);
    ended.names(&[&alice, "partition 0", "does not serve"]);
    let (_, half) = funds.moves("alice", "external:out", 120).await;
    assert_eq!(half, "posted");
    let (_, half) = funds.moves("alice", "external:out", 31).await;
    assert_eq!(half, REJECTED);

    // Or a payment goes in two steps: out of one database, and, once that is posted, into the other.
    funds.moves_well("bob", "external:to-low", 25).await;
    funds.moves_well("external:from-high", "alice", 25).await;
    funds.moves_well("alice", "external:out", 55).await;
    let (_, half) = funds.moves("bob", "external:out", 26).await;
    assert_eq!(half, REJECTED);
    // Over both nobody is overdrawn, and what is on its way between the two is nothing.
    let balances = "select account, balance from reports.balances where account in ('ALICE', 'BOB') order by 1";
    let balances = balances.replace("ALICE", &alice).replace("BOB", &funds.bob);
    let wanted = [format!("({alice},0)"), format!("({},25)", funds.bob)];
    assert_eq!(all.rows(&balances).await, wanted);
    let way = "select sum(balance)::bigint from reports.balances where account in ('external:to-low', 'external:from-high')";
    assert_eq!(all.number(way).await, 0);
    funds.split.verify().await;
}
