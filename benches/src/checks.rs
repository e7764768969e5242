//! Whether the result is right: counts and sums against the generator's library, and the ledger's own
//! proof.

use std::collections::HashSet;
use std::fmt::Debug;

use anyhow::Context as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::case::Parameters;
use crate::load::Load;
use crate::record::Verdicts;

/// What became of every record so far.
pub async fn verdicts(connection: &mut PgConnection) -> anyhow::Result<Verdicts> {
    let verdicts = sqlx::query_as(
        "select coalesce(sum(posted), 0)::bigint as posted,
             coalesce(sum(duplicate), 0)::bigint as duplicate,
             coalesce(sum(rejected), 0)::bigint as rejected,
             coalesce(sum(refused), 0)::bigint as refused,
             coalesce(sum(parked), 0)::bigint as parked,
             coalesce(sum(skipped), 0)::bigint as skipped
         from millrace.batches",
    );
    Ok(verdicts.fetch_one(connection).await?)
}

/// Everything that is wrong; nothing is the result hoped for.
pub async fn failures(
    connection: &mut PgConnection,
    parameters: &Parameters,
    load: &Load,
) -> anyhow::Result<Vec<String>> {
    let verdicts = verdicts(connection).await?;
    let mut failures = Failures::default();
    check_counts(connection, &mut failures, parameters, load, verdicts).await?;
    check_sums(connection, &mut failures, load, verdicts).await?;
    if let Some(limit) = parameters.limit {
        let overdrawn: i64 = sqlx::query_scalar(
            "select count(*) from (
                 select account from millrace.balances where not starts_with(account, 'external:')
                 group by account, currency having sum(credits - debits) < -$1::bigint) s",
        )
        .bind(i64::try_from(limit)?)
        .fetch_one(connection)
        .await?;
        failures.unless_equal("accounts below their limit", overdrawn, 0);
    }
    Ok(failures.0)
}

async fn check_counts(
    connection: &mut PgConnection,
    failures: &mut Failures,
    parameters: &Parameters,
    load: &Load,
    verdicts: Verdicts,
) -> anyhow::Result<()> {
    let published = i64::try_from(load.count())?;
    failures.unless_equal("records with a verdict", verdicts.records(), published);
    let unwanted = Verdicts {
        posted: 0,
        rejected: 0,
        ..verdicts
    };
    failures.unless_equal(
        "records neither posted nor rejected",
        unwanted,
        Verdicts::default(),
    );
    if parameters.limit.is_none() {
        failures.unless_equal("rejected without a limit", verdicts.rejected, 0);
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from millrace.ledger")
        .fetch_one(connection)
        .await?;
    failures.unless_equal(
        "rows of the ledger",
        rows,
        verdicts.posted + verdicts.rejected,
    );
    Ok(())
}

/// Debits, credits and the ledger must all come to what was published less what was rejected.
async fn check_sums(
    connection: &mut PgConnection,
    failures: &mut Failures,
    load: &Load,
    verdicts: Verdicts,
) -> anyhow::Result<()> {
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from millrace.ledger where verdict <> 0")
        .fetch_all(&mut *connection)
        .await?;
    let ids: HashSet<_> = ids.into_iter().collect();
    let rejected = match load.rejected_amounts(&ids) {
        Ok(amounts) => amounts,
        Err(failure) => {
            failures.0.push(format!("{failure:#}"));
            return Ok(());
        }
    };
    let expected = load.amounts - rejected;
    let (debits, credits, moves, posted): (String, String, i64, String) = sqlx::query_as(
        "select coalesce(sum(debits), 0)::text, coalesce(sum(credits), 0)::text,
             coalesce(sum(transactions), 0)::bigint,
             (select coalesce(sum(amount), 0)::text from millrace.ledger where verdict = 0)
         from millrace.balances",
    )
    .fetch_one(connection)
    .await?;
    for (what, sum) in [
        ("the sum of debits", debits),
        ("the sum of credits", credits),
        ("the sum of the ledger's amounts", posted),
    ] {
        let sum: i128 = sum.parse().with_context(|| format!("{what} is {sum:?}"))?;
        failures.unless_equal(what, sum, expected);
    }
    failures.unless_equal("balances' counts", moves, 2 * verdicts.posted);
    Ok(())
}

#[derive(Debug, Default)]
struct Failures(Vec<String>);

impl Failures {
    fn unless_equal<T: Copy + PartialEq + Debug>(&mut self, what: &str, found: T, right: T) {
        if found != right {
            self.0.push(format!("{what}: {found:?}, not {right:?}"));
        }
    }
}
