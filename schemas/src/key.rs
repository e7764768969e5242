//! The Kafka key of a transaction and the partition it belongs to.
//!
//! The key is the debit account, unless that is external, then the credit account, and when both are
//! external the id. So all debits of an account that can run dry are in one partition, in order.
//! The partition is that of the Java client's default partitioner for keyed records, which
//! librdkafka calls `murmur2_random`.

use std::fmt;

use crate::Transaction;

/// A derived key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// An account id.
    Account(&'a str),
    /// The id as hyphenated lower-case text, where both accounts are external.
    Id(uuid::fmt::Hyphenated),
}

impl<'a> Key<'a> {
    /// The key that records of this transaction must carry.
    pub fn of(transaction: &'a Transaction<'_>) -> Self {
        if !transaction.debit_account.is_external() {
            Self::Account(transaction.debit_account.as_str())
        } else if !transaction.credit_account.is_external() {
            Self::Account(transaction.credit_account.as_str())
        } else {
            Self::Id(transaction.id.hyphenated())
        }
    }

    /// Calls `use_bytes` with the key's bytes, without an allocation.
    pub fn with_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Account(account) => use_bytes(account.as_bytes()),
            Self::Id(id) => use_bytes(
                id.encode_lower(&mut [0; uuid::fmt::Hyphenated::LENGTH])
                    .as_bytes(),
            ),
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(account) => f.write_str(account),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// The partition of `key` among `partitions` (at least 1), as the Java client computes it:
/// `(murmur2(key) & 0x7fffffff) % partitions`.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = i32::from_ne_bytes(murmur2(key).to_ne_bytes()) & i32::MAX;
    positive % partitions.max(1)
}

/// `org.apache.kafka.common.utils.Utils.murmur2`: `MurmurHash2`, 32 bit, seed 0x9747b28c.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // The Java client hashes an int length; Kafka keys are far below its limit.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "keys are shorter than 4 GiB"
    )]
    let mut h = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (key, murmur2 as signed, partition of 12, partition of 48), printed by the Java client 4.1.0's
    /// `Utils.murmur2` and `Utils.toPositive(..) % n`. Every length modulo 4 is there.
    const JAVA: [(&str, i32, i32, i32); 12] = [
        ("", 275_646_681, 9, 9),
        ("a", -1_563_381_124, 4, 28),
        ("ab", 316_155_434, 2, 26),
        ("abc", 479_470_107, 3, 27),
        ("abcd", -1_323_649_548, 8, 20),
        ("abcde", 461_995_741, 1, 13),
        ("account-1", 1_835_529_620, 8, 20),
        ("external:world", -2_145_717_047, 9, 9),
        ("příjem", -1_395_033_621, 11, 11),
        ("日本語", 1_431_860_170, 10, 10),
        ("😀", 131_881_617, 9, 33),
        (
            "00000000-0000-0000-0000-000000000001",
            -1_445_649_318,
            2,
            26,
        ),
    ];

    fn assert_java(key: &str, hash: i32, of_12: i32, of_48: i32) {
        assert_eq!(
            i32::from_ne_bytes(murmur2(key.as_bytes()).to_ne_bytes()),
            hash,
            "{key}"
        );
        assert_eq!(partition_of(key.as_bytes(), 12), of_12, "{key}");
        assert_eq!(partition_of(key.as_bytes(), 48), of_48, "{key}");
    }

    #[test]
    fn short_and_multi_byte_keys_hash_as_in_java() {
        for (key, hash, of_12, of_48) in JAVA {
            assert_java(key, hash, of_12, of_48);
        }
    }

    #[test]
    fn long_keys_hash_as_in_java() {
        let alphabet: String = ('a'..='z').cycle().take(300).collect();
        for (tail, hash, of_12, of_48) in [
            ("", -1_119_856_935, 5, 41),
            ("x", -355_957_749, 11, 11),
            ("xy", -913_109_548, 4, 4),
            ("xyz", 88_426_119, 3, 39),
        ] {
            assert_java(&format!("{alphabet}{tail}"), hash, of_12, of_48);
        }
    }
}
