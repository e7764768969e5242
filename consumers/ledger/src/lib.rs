//! The ledger consumer group: one database transaction per batch.
