//! Whether the database holds exactly what Kafka acknowledged. Nothing of Millrace judges here: the rows are
//! compared with what was published, number by number, and sums are added up anew.

use futures_util::TryStreamExt as _;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::journal::{Journal, Place};
use crate::transactions::{CURRENCY, Transactions, account_name, account_number};

/// How many findings are told in words; all are counted.
const TOLD_MAX: usize = 20;

/// What was found. All but the first four must be 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Transactions that Kafka acknowledged.
    pub acknowledged: u64,
    /// Rows of the ledger.
    pub posted: u64,
    /// Records that became duplicates.
    pub duplicates: u64,
    /// Records that had no answer once, and were handed in again.
    pub doubtful: u64,
    /// Acknowledged records without a verdict at their place.
    pub lost: u64,
    /// Transactions posted more than once.
    pub duplicated: u64,
    /// Rows whose order is not that of the log, or not that in which they were handed in.
    pub out_of_order: u64,
    /// Anything else that is not as it was published.
    pub wrong: u64,
    /// The first findings in words.
    pub findings: Vec<String>,
}

/// What the oracle knows.
#[derive(Debug)]
pub struct Oracle<'a> {
    transactions: Transactions,
    journal: &'a Journal,
    /// The end of each partition's log.
    ends: &'a [i64],
    /// A bit for each transaction: whether it is posted.
    posted: Vec<u64>,
    /// Debits and credits of each account; the outside comes last.
    sums: Vec<(i128, i128)>,
    judgement: Judgement,
}

/// A row of the ledger.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    seq: i64,
    log_offset: i64,
    verdict: i16,
    id: Uuid,
    debit_account: String,
    credit_account: String,
    amount: i64,
    currency: String,
}

/// A row of the batches.
#[derive(Debug, sqlx::FromRow)]
struct Batch {
    from_offset: i64,
    next_offset: i64,
    posted: i32,
    duplicate: i32,
    others: i64,
}

/// Where the oracle is in a partition.
#[derive(Debug, Default)]
struct Cursor {
    next_seq: i64,
    offset: Option<i64>,
    number: Option<u64>,
}

/// Judges the database.
pub async fn judge(
    connection: &mut PgConnection,
    transactions: Transactions,
    journal: &Journal,
    ends: &[i64],
) -> anyhow::Result<Judgement> {
    let mut oracle = Oracle::new(transactions, journal, ends)?;
    let again = journal.again();
    for partition in 0..i32::try_from(ends.len())? {
        let again = offsets(&again, partition);
        oracle.judge_rows(connection, partition, &again).await?;
        oracle.judge_batches(connection, partition, &again).await?;
    }
    oracle.judge_acknowledged();
    oracle.judge_balances(connection).await?;
    Ok(oracle.judgement)
}

/// The known offsets of a partition, ascending.
fn offsets(places: &[Place], partition: i32) -> Vec<i64> {
    let of_partition = places.iter().filter(|place| place.partition == partition);
    of_partition.filter_map(|place| place.offset).collect()
}

impl Judgement {
    /// Whether nothing was found.
    pub fn holds(&self) -> bool {
        (self.lost, self.duplicated, self.out_of_order, self.wrong) == (0, 0, 0, 0)
    }

    /// What everybody wants to know.
    pub fn line(&self) -> String {
        format!(
            "{} acknowledged, {} posted, {} duplicates: {} lost, {} duplicated, {} out of order, {} wrong",
            self.acknowledged,
            self.posted,
            self.duplicates,
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.wrong
        )
    }

    fn tell(&mut self, finding: String) {
        if self.findings.len() < TOLD_MAX {
            self.findings.push(finding);
        }
    }
}

impl<'a> Oracle<'a> {
    fn new(
        transactions: Transactions,
        journal: &'a Journal,
        ends: &'a [i64],
    ) -> anyhow::Result<Self> {
        let accounts = usize::try_from(transactions.accounts)?;
        let words = usize::try_from(journal.handed_in().div_ceil(64))?;
        Ok(Self {
            transactions,
            journal,
            ends,
            posted: vec![0; words],
            sums: vec![(0, 0); accounts + 1],
            judgement: Judgement {
                acknowledged: journal.acknowledged,
                doubtful: journal.doubtful() as u64,
                ..Judgement::default()
            },
        })
    }

    async fn judge_rows(
        &mut self,
        connection: &mut PgConnection,
        partition: i32,
        again: &[i64],
    ) -> anyhow::Result<()> {
        let mut rows = sqlx::query_as(
            "select seq, log_offset, verdict, id, debit_account, credit_account, amount, currency
             from millrace.ledger where partition = $1 order by seq",
        )
        .bind(partition)
        .fetch(connection);
        let mut cursor = Cursor::default();
        while let Some(row) = rows.try_next().await? {
            self.judge_row(partition, &row, again, &mut cursor);
        }
        Ok(())
    }

    fn judge_row(&mut self, partition: i32, row: &Row, again: &[i64], cursor: &mut Cursor) {
        self.judgement.posted += 1;
        let at = format_args!("partition {partition}, seq {}", row.seq).to_string();
        if row.seq != cursor.next_seq || row.verdict != 0 {
            self.judgement.wrong += 1;
            let found = (row.seq, row.verdict);
            self.judgement
                .tell(format!("{at}: seq and verdict are {found:?}"));
        }
        cursor.next_seq = row.seq + 1;
        let Some(number) = self.number(row) else {
            self.judgement.wrong += 1;
            self.judgement.tell(format!("{at}: not published: {row:?}"));
            return;
        };
        if cursor.offset >= Some(row.log_offset) {
            self.judgement.out_of_order += 1;
            self.judgement
                .tell(format!("{at}: offset {} comes late", row.log_offset));
        }
        cursor.offset = Some(row.log_offset);
        if !self.journal.is_doubtful(number) {
            if cursor.number > Some(number) {
                self.judgement.out_of_order += 1;
                self.judgement
                    .tell(format!("{at}: transaction {number} was handed in before"));
            }
            cursor.number = Some(number);
        }
        if !self.mark(number) {
            self.judgement.duplicated += 1;
            self.judgement
                .tell(format!("{at}: transaction {number} is posted again"));
        }
        if !self.is_in_place(number, partition, row.log_offset)
            || again.binary_search(&row.log_offset).is_ok()
        {
            self.judgement.wrong += 1;
            let place = self.journal.place(number);
            self.judgement.tell(format!(
                "{at}: offset {} of a transaction at {place:?}",
                row.log_offset
            ));
        }
        self.add(number);
    }

    /// Which transaction it is, if every field is as it was published.
    fn number(&self, row: &Row) -> Option<u64> {
        let number = self.transactions.number(row.id)?;
        let moves = self.transactions.moves(number);
        let is_same = number < self.journal.handed_in()
            && account_number(&row.debit_account) == Some(moves.debit)
            && account_number(&row.credit_account) == Some(moves.credit)
            && row.amount == moves.amount
            && row.currency == CURRENCY;
        is_same.then_some(number)
    }

    /// Whether it is where Kafka said. One that was handed in twice may be there earlier.
    fn is_in_place(&self, number: u64, partition: i32, offset: i64) -> bool {
        let is_doubtful = self.journal.is_doubtful(number);
        match self.journal.place(number) {
            None => is_doubtful,
            Some(place) => {
                place.partition == partition
                    && place
                        .offset
                        .is_none_or(|known| known == offset || is_doubtful && offset < known)
            }
        }
    }

    /// False when it was marked already.
    fn mark(&mut self, number: u64) -> bool {
        let (word, bit) = bit(number);
        let is_first = self.posted[word] & bit == 0;
        self.posted[word] |= bit;
        is_first
    }

    fn add(&mut self, number: u64) {
        let moves = self.transactions.moves(number);
        let outside = self.sums.len() - 1;
        let place = |account| usize::try_from(account).map_or(outside, |a| a.min(outside));
        let amount = i128::from(moves.amount);
        self.sums[place(moves.debit)].0 += amount;
        self.sums[place(moves.credit)].1 += amount;
    }

    fn judge_acknowledged(&mut self) {
        for number in 0..self.journal.handed_in() {
            let (word, bit) = bit(number);
            if self.posted[word] & bit == 0
                && let Some(place) = self.journal.place(number)
            {
                self.judgement.lost += 1;
                self.judgement
                    .tell(format!("transaction {number} at {place:?} is not posted"));
            }
        }
    }

    /// The batches cover the log from its start to its end, each offset once, and what was sent again became
    /// duplicates in the batch that holds its place.
    async fn judge_batches(
        &mut self,
        connection: &mut PgConnection,
        partition: i32,
        again: &[i64],
    ) -> anyhow::Result<()> {
        let mut batches = sqlx::query_as::<_, Batch>(
            "select from_offset, next_offset, posted, duplicate,
                 rejected + refused + parked + discarded + skipped as others
             from millrace.batches where partition = $1 order by batch",
        )
        .bind(partition)
        .fetch(connection);
        let mut next = 0;
        while let Some(batch) = batches.try_next().await? {
            let range = batch.from_offset..batch.next_offset;
            let records = i64::from(batch.posted) + i64::from(batch.duplicate);
            let known = again.partition_point(|offset| *offset < range.end)
                - again.partition_point(|offset| *offset < range.start);
            let known = i32::try_from(known)?;
            // What had no answer may be there twice.
            let is_right =
                batch.duplicate == known || batch.duplicate > known && self.journal.doubtful() > 0;
            self.judgement.duplicates += u64::from(batch.duplicate.unsigned_abs());
            if range.start != next
                || records != range.end - range.start
                || batch.others != 0
                || !is_right
            {
                self.judgement.wrong += 1;
                self.judgement.tell(format!(
                    "partition {partition}, after {next}, sent again {known}: {batch:?}"
                ));
            }
            next = batch.next_offset;
        }
        let end = usize::try_from(partition).map(|index| self.ends[index])?;
        if next != end {
            self.judgement.lost += (end - next).unsigned_abs();
            self.judgement.tell(format!(
                "partition {partition} ends at {end}, not at {next}"
            ));
        }
        Ok(())
    }

    async fn judge_balances(&mut self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let rows: Vec<(String, String, String)> =
            sqlx::query_as("select account, debits::text, credits::text from reports.balances")
                .fetch_all(connection)
                .await?;
        let outside = self.sums.len() - 1;
        let mut open = self.sums.clone();
        for (name, debits, credits) in rows {
            let number = account_number(&name).map(|n| usize::try_from(n).unwrap_or(outside));
            let found: (i128, i128) = (debits.parse()?, credits.parse()?);
            let wanted = number.and_then(|number| open.get_mut(number.min(outside)));
            let wanted = wanted.map(std::mem::take);
            if wanted != Some(found) {
                self.judgement.wrong += 1;
                self.judgement
                    .tell(format!("{name} has {found:?}, not {wanted:?}"));
            }
        }
        for (number, sums) in (0..).zip(&open).filter(|(_, sums)| **sums != (0, 0)) {
            self.judgement.wrong += 1;
            let name = account_name(number);
            self.judgement
                .tell(format!("{name} has nothing, not {sums:?}"));
        }
        Ok(())
    }
}

/// Its word and its bit there.
fn bit(number: u64) -> (usize, u64) {
    let word = usize::try_from(number / 64).expect("it was handed in");
    (word, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use millrace_publisher::Receipt;

    use super::*;
    use crate::journal::Sending;

    const ALL: Transactions = Transactions {
        seed: 3,
        accounts: 100,
    };

    /// Four transactions at offsets 0 to 3, and the second once more at 4.
    fn journal() -> Journal {
        let mut journal = Journal::default();
        let receipt = |offset| Receipt {
            partition: 0,
            offset,
        };
        for offset in 0..4 {
            let number = journal.add();
            journal.answer(number, Sending::First, Ok(receipt(offset)));
        }
        journal.answer(1, Sending::Again, Ok(receipt(4)));
        journal
    }

    /// The rows that they must become.
    fn rows() -> Vec<Row> {
        let row = |number: u64| {
            let moves = ALL.moves(number);
            Row {
                seq: number.cast_signed(),
                log_offset: number.cast_signed(),
                verdict: 0,
                id: ALL.id(number),
                debit_account: account_name(moves.debit),
                credit_account: account_name(moves.credit),
                amount: moves.amount,
                currency: CURRENCY.into(),
            }
        };
        (0..4).map(row).collect()
    }

    fn judged(rows: &[Row]) -> Judgement {
        let journal = journal();
        let mut oracle = Oracle::new(ALL, &journal, &[5]).unwrap();
        let mut cursor = Cursor::default();
        let again = offsets(&journal.again(), 0);
        for row in rows {
            oracle.judge_row(0, row, &again, &mut cursor);
        }
        oracle.judge_acknowledged();
        oracle.judgement
    }

    #[test]
    fn what_was_published_holds() {
        let judgement = judged(&rows());
        assert!(judgement.holds(), "{judgement:?}");
        assert_eq!((judgement.acknowledged, judgement.posted), (4, 4));
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        type Damage = fn(&mut Vec<Row>);
        type Count = fn(&Judgement) -> u64;
        let damages: [(&str, Damage, Count); 8] = [
            ("a row less", |rows| drop(rows.pop()), |j| j.lost),
            ("an id twice", |rows| rows[3].id = rows[2].id, |j| j.lost),
            (
                "a transaction twice",
                |rows| {
                    let offset = rows[3].log_offset + 1;
                    let mut rows_again = self::rows();
                    let again = rows_again.swap_remove(1);
                    rows.push(Row {
                        seq: 4,
                        log_offset: offset,
                        ..again
                    });
                },
                |j| j.duplicated,
            ),
            (
                "two swapped",
                |rows| {
                    rows.swap(1, 2);
                    (rows[1].seq, rows[2].seq) = (1, 2);
                },
                |j| j.out_of_order,
            ),
            ("an amount", |rows| rows[2].amount += 1, |j| j.wrong),
            ("an offset", |rows| rows[3].log_offset = 7, |j| j.wrong),
            ("a verdict", |rows| rows[0].verdict = 3, |j| j.wrong),
            ("a gap in seq", |rows| rows[3].seq = 9, |j| j.wrong),
        ];
        for (what, damage, count) in damages {
            let mut rows = rows();
            damage(&mut rows);
            let judgement = judged(&rows);
            assert!(
                !judgement.holds() && count(&judgement) > 0,
                "{what}: {judgement:?}"
            );
        }
    }
}
