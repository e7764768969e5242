//! Every offset has one verdict: counted from the batches, and independently from the tables.

use std::ops::Range;

use sqlx::PgConnection;

use crate::store::positions;
use crate::verify::walk::{End, Start};
use crate::verify::{Counts, Report};

/// Counts the batches and the rows of each walk by kind, and compares.
pub(super) async fn count(
    connection: &mut PgConnection,
    walks: &[(Start, End)],
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    for (start, end) in walks {
        let (batches, tables) = count_one(connection, start, end).await?;
        for (kind, counted, found) in [
            ("posted", batches.posted, tables.posted),
            ("rejected", batches.rejected, tables.rejected),
            ("refused", batches.refused, tables.refused),
            ("parked", batches.parked, tables.parked),
            ("discarded", batches.discarded, tables.discarded),
        ] {
            if counted != found {
                report.find(
                    "conservation",
                    format!("partition {}, {kind}", end.partition),
                    format!("the batches count {counted}, the tables hold {found}"),
                );
            }
        }
        report.counts.add(&batches);
    }
    let broken = sqlx::query!(
        r#"select partition as "partition!", incarnation as "incarnation!",
             start_offset as "start_offset!", position as "position!",
             (records + skipped)::text as "accounted!"
         from reports.conservation where not holds order by 1, 2"#
    )
    .fetch_all(connection)
    .await?;
    for row in broken {
        report.find(
            "conservation",
            format!(
                "partition {}, incarnation {}, offsets {} to {}",
                row.partition, row.incarnation, row.start_offset, row.position
            ),
            format!("records and skipped offsets add up to {}", row.accounted),
        );
    }
    Ok(())
}

/// What operators have accepted: a batch must have begun each. That each was accepted, the chain shows.
pub(super) async fn read_accepted(
    connection: &mut PgConnection,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        "select i.partition, i.incarnation, i.batch from millrace.incarnations i
         left join millrace.batches b on b.partition = i.partition and b.batch = i.batch
         where (b.incarnation, b.from_offset) is distinct from (i.incarnation, i.start_offset)
         order by i.partition, i.incarnation"
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        report.find(
            "incarnations",
            format!(
                "partition {}, incarnation {}, batch {}",
                row.partition, row.incarnation, row.batch
            ),
            "no batch has begun what was accepted".into(),
        );
    }
    report.accepted = positions::accepted(connection).await?;
    Ok(())
}

/// The same range twice: what its batches say, and what the tables hold.
async fn count_one(
    connection: &mut PgConnection,
    start: &Start,
    end: &End,
) -> Result<(Counts, Counts), sqlx::Error> {
    let range = start.next_batch..end.next_batch;
    let batches = count_batches(connection, end.partition, range).await?;
    // Duplicates and skipped offsets have no rows: the log shows them.
    let tables = sqlx::query_as!(
        Counts,
        r#"select l.posted as "posted!", 0::bigint as "duplicate!", l.rejected as "rejected!",
             f.count as "refused!", p.count - s.count as "parked!", s.discarded as "discarded!",
             0::bigint as "skipped!"
         from (
             select count(*) filter (where verdict = 0) as posted,
                 count(*) filter (where verdict <> 0) as rejected
             from millrace.ledger where partition = $1 and seq >= $2 and seq < $3
         ) l, (
             select count(*) from millrace.refused where partition = $1 and seq >= $2 and seq < $3
         ) f, (
             select count(*) from millrace.parked where partition = $1 and seq >= $2 and seq < $3
         ) p, (
             select count(*), count(*) filter (where resolution = 'discarded') as discarded
             from millrace.parked_resolutions where partition = $1 and seq >= $2 and seq < $3
         ) s"#,
        end.partition,
        start.next_seq,
        end.next_seq
    )
    .fetch_one(connection)
    .await?;
    Ok((batches, tables))
}

/// What some batches of a partition count.
pub(super) async fn count_batches(
    connection: &mut PgConnection,
    partition: i32,
    batches: Range<i64>,
) -> Result<Counts, sqlx::Error> {
    sqlx::query_as!(
        Counts,
        r#"select coalesce(sum(posted), 0)::bigint as "posted!",
             coalesce(sum(duplicate), 0)::bigint as "duplicate!",
             coalesce(sum(rejected), 0)::bigint as "rejected!",
             coalesce(sum(refused), 0)::bigint as "refused!",
             coalesce(sum(parked), 0)::bigint as "parked!",
             coalesce(sum(discarded), 0)::bigint as "discarded!",
             coalesce(sum(skipped), 0)::bigint as "skipped!"
         from millrace.batches where partition = $1 and batch >= $2 and batch < $3"#,
        partition,
        batches.start,
        batches.end
    )
    .fetch_one(connection)
    .await
}
