//! HTTP ingest: transactions in, receipts out.
