//! From posted rows to what they change in the slices of balances, and the threads through them. Pure.
//!
//! A thread ties the posted rows of one slice (account, currency, partition) together, from the last one
//! backwards: so an account's transactions are found without an index on accounts.

use std::cmp::Ordering;

use crate::pipeline::outcome::{Delta, LedgerRow, Previous};

/// One side of a posted row, small: there are two per row, and they are sorted.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// The account's first bytes, which nearly always tell two accounts apart.
    prefix: u128,
    /// The currency's code.
    currency: u32,
    /// The row's index in the ledger's rows, twice; plus one for the credit side.
    entry: u32,
}

impl Side {
    fn of(row: usize, account: &str, currency: &str, is_credit: bool) -> Self {
        let mut prefix = [0; 16];
        let length = account.len().min(16);
        prefix[..length].copy_from_slice(&account.as_bytes()[..length]);
        let mut code = [0; 4];
        code[..3].copy_from_slice(&currency.as_bytes()[..3]);
        let row = u32::try_from(row).expect("a batch is smaller");
        Self {
            prefix: u128::from_be_bytes(prefix),
            currency: u32::from_be_bytes(code),
            entry: 2 * row + u32::from(is_credit),
        }
    }

    fn row(self) -> usize {
        (self.entry / 2) as usize
    }

    fn is_credit(self) -> bool {
        !self.entry.is_multiple_of(2)
    }

    fn account<'d>(self, ledger: &[LedgerRow<'d>]) -> &'d str {
        let transaction = ledger[self.row()].transaction;
        if self.is_credit() {
            transaction.credit_account.as_str()
        } else {
            transaction.debit_account.as_str()
        }
    }

    /// By (account, currency, partition, seq), as the index has them: no two partitions meet there, and neighbours
    /// share pages. The rows are by (partition, seq) already.
    fn cmp(self, other: Self, ledger: &[LedgerRow<'_>]) -> Ordering {
        self.prefix
            .cmp(&other.prefix)
            // A prefix that ends in zeros is a whole account: no account has a zero.
            .then_with(|| match self.prefix.to_be_bytes()[15] {
                0 => Ordering::Equal,
                _ => self.account(ledger).cmp(other.account(ledger)),
            })
            .then(self.currency.cmp(&other.currency))
            .then(self.entry.cmp(&other.entry))
    }
}

/// Every posted row moves two slices: adds up what meets, by (account, currency, partition), and threads the rows
/// of each slice. The rows are by (partition, seq).
pub(super) fn move_balances<'d>(ledger: &mut [LedgerRow<'d>]) -> Vec<Delta<'d>> {
    let posted = ledger
        .iter()
        .enumerate()
        .filter(|(_, row)| row.verdict == 0);
    let mut sides = Vec::with_capacity(2 * ledger.len());
    for (row, LedgerRow { transaction, .. }) in posted {
        let currency = transaction.currency.code();
        sides.push(Side::of(
            row,
            transaction.debit_account.as_str(),
            currency,
            false,
        ));
        sides.push(Side::of(
            row,
            transaction.credit_account.as_str(),
            currency,
            true,
        ));
    }
    sides.sort_unstable_by(|one, other| one.cmp(*other, ledger));

    let mut deltas: Vec<Delta<'d>> = Vec::with_capacity(sides.len());
    for side in sides {
        let mut next = delta(side, ledger);
        let previous = match deltas.last_mut() {
            Some(kept) if kept.is_of_slice(&next) => {
                let last_seq = kept.last_seq;
                if !kept.add(&next) {
                    next.round = kept.round + 1;
                    deltas.push(next);
                }
                Previous::Row(last_seq)
            }
            _ => {
                deltas.push(next);
                Previous::Slice(deltas.len() - 1)
            }
        };
        let row = &mut ledger[side.row()];
        if side.is_credit() {
            row.credit_previous = previous;
        } else {
            row.debit_previous = previous;
        }
    }
    deltas
}

fn delta<'d>(side: Side, ledger: &[LedgerRow<'d>]) -> Delta<'d> {
    let row = &ledger[side.row()];
    let amount = row.transaction.amount.minor_units();
    let (debits, credits) = if side.is_credit() {
        (0, amount)
    } else {
        (amount, 0)
    };
    Delta {
        account: side.account(ledger),
        currency: row.transaction.currency.code(),
        partition: row.partition,
        debits,
        credits,
        transactions: 1,
        last_occurred_at: row.transaction.occurred_at,
        last_seq: row.seq,
        round: 0,
    }
}

#[cfg(test)]
mod tests {
    use millrace_rules::{AccountId, Amount, Currency};
    use millrace_schemas::Transaction;
    use uuid::Uuid;

    use super::*;

    fn transaction(
        debit: &'static str,
        credit: &'static str,
        amount: i64,
        occurred_at: i64,
    ) -> Transaction<'static> {
        Transaction {
            id: Uuid::nil(),
            kind: "transfer".into(),
            debit_account: AccountId::parse(debit.into()).unwrap(),
            credit_account: AccountId::parse(credit.into()).unwrap(),
            amount: Amount::new(amount).unwrap(),
            currency: Currency::parse("EUR").unwrap(),
            occurred_at,
            reference: "".into(),
            source: "test".into(),
            metadata: millrace_schemas::wire::Metadata::default(),
        }
    }

    fn row<'a>(
        partition: i32,
        seq: i64,
        verdict: i16,
        transaction: &'a Transaction<'a>,
    ) -> LedgerRow<'a> {
        LedgerRow {
            partition,
            seq,
            log_offset: seq,
            verdict,
            digest: [0; 32],
            transaction,
            debit_previous: Previous::None,
            credit_previous: Previous::None,
        }
    }

    fn delta(
        account: &'static str,
        partition: i32,
        (debits, credits): (i64, i64),
        transactions: i64,
        (last_occurred_at, last_seq): (i64, i64),
    ) -> Delta<'static> {
        Delta {
            account,
            currency: "EUR",
            partition,
            debits,
            credits,
            transactions,
            last_occurred_at,
            last_seq,
            round: 0,
        }
    }

    #[test]
    fn rows_of_a_slice_become_one_change_and_one_thread() {
        let [pays, returns, bounces, elsewhere] = [
            transaction("a", "b", 10, 5),
            transaction("b", "a", 4, 3),
            transaction("a", "b", 7, 9),
            transaction("a", "b", 1, 1),
        ];
        let mut rows = [
            row(0, 7, 0, &pays),
            row(0, 8, 0, &returns),
            row(0, 9, 2, &bounces),
            row(1, 3, 0, &elsewhere),
        ];
        assert_eq!(
            move_balances(&mut rows),
            [
                delta("a", 0, (10, 4), 2, (5, 8)),
                delta("a", 1, (1, 0), 1, (1, 3)),
                delta("b", 0, (4, 10), 2, (5, 8)),
                delta("b", 1, (0, 1), 1, (1, 3)),
            ]
        );
        let threads = rows.map(|row| (row.debit_previous, row.credit_previous));
        assert_eq!(
            threads,
            [
                (Previous::Slice(0), Previous::Slice(2)),
                (Previous::Row(7), Previous::Row(7)),
                (Previous::None, Previous::None),
                (Previous::Slice(1), Previous::Slice(3)),
            ]
        );
    }

    #[test]
    fn slices_are_in_the_order_of_accounts_however_long() {
        let names = [
            "account-00000001",
            "account-00000001-b",
            "account-00000001-a",
            "a",
            "account-0000000",
            "account-00000002",
        ];
        let transactions: Vec<_> = names.map(|name| transaction(name, "z", 1, 1)).into();
        let mut rows: Vec<_> = (0..)
            .zip(&transactions)
            .map(|(seq, t)| row(0, seq, 0, t))
            .collect();
        let deltas = move_balances(&mut rows);
        let accounts: Vec<_> = deltas.iter().map(|delta| delta.account).collect();
        assert_eq!(
            accounts,
            [
                "a",
                "account-0000000",
                "account-00000001",
                "account-00000001-a",
                "account-00000001-b",
                "account-00000002",
                "z"
            ]
        );
        assert_eq!(deltas.last().unwrap().transactions, 6);
    }

    #[test]
    fn what_does_not_fit_into_64_bits_is_a_change_of_its_own() {
        let largest = transaction("a", "b", Amount::MAX, 1);
        let fits = i64::MAX / Amount::MAX;
        let mut rows: Vec<_> = (0..=fits).map(|seq| row(0, seq, 0, &largest)).collect();
        let deltas = move_balances(&mut rows);
        let sum = fits * Amount::MAX;
        assert_eq!(
            deltas,
            [
                delta("a", 0, (sum, 0), fits, (1, fits - 1)),
                Delta {
                    round: 1,
                    ..delta("a", 0, (Amount::MAX, 0), 1, (1, fits))
                },
                delta("b", 0, (0, sum), fits, (1, fits - 1)),
                Delta {
                    round: 1,
                    ..delta("b", 0, (0, Amount::MAX), 1, (1, fits))
                },
            ]
        );
        assert_eq!(rows[0].debit_previous, Previous::Slice(0));
        assert_eq!(rows.last().unwrap().debit_previous, Previous::Row(fits - 1));
    }
}
