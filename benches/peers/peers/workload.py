"""The transactions: published by `millrace generate`, and read back for peers that do not read Kafka."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

# When the first transaction occurs, so that every run publishes the same ones: 2026-01-01, as benches/run.sh.
START_MICROS = 1_767_225_600_000_000

# Records that one call to the client library may return: bounds what is held twice.
CONSUME_MAX = 10_000

# Nothing comes for so long: then the topic has fewer records than it must have.
CONSUME_TIMEOUT_S = 30.0

HEADER_BYTES = 10


@dataclass(frozen=True)
class Workload:
    """What is published. The same flags as `millrace generate`."""

    count: int
    accounts: int
    partitions: int
    skew: str
    seed: int = 1


class Transaction(NamedTuple):
    """The fields of schemas/avro/transaction.avsc, in its order."""

    id: bytes
    kind: bytes
    debit_account: bytes
    credit_account: bytes
    amount: int
    currency: bytes
    occurred_at: int
    reference: bytes
    source: bytes
    metadata: list[tuple[bytes, bytes]]


def read_topic(brokers: str, topic: str, partitions: int, count: int) -> Iterator[bytes]:
    """The values of `count` records, from the beginning, in the order in which the client library returns them."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"{topic}-reader", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        left = count
        while left > 0:
            messages = consumer.consume(min(left, CONSUME_MAX), CONSUME_TIMEOUT_S)
            if not messages:
                raise RuntimeError(f"{topic} has {left} of {count} records less than it must have")
            for message in messages:
                if message.error():
                    raise RuntimeError(f"reading {topic}: {message.error()}")
                left -= 1
                yield message.value() or b""
    finally:
        consumer.close()


def decode(value: bytes) -> Transaction:
    """Avro in single-object encoding, the only one that `millrace generate` writes."""
    if value[:2] != b"\xc3\x01":
        raise ValueError(f"not Avro in single-object encoding: {value[:16]!r}")
    at = HEADER_BYTES
    id, at = _text(value, at)
    kind, at = _text(value, at)
    debit_account, at = _text(value, at)
    credit_account, at = _text(value, at)
    amount, at = _number(value, at)
    currency, at = _text(value, at)
    occurred_at, at = _number(value, at)
    reference, at = _text(value, at)
    source, at = _text(value, at)
    metadata = _map(value, at)
    return Transaction(
        id, kind, debit_account, credit_account, amount, currency, occurred_at, reference, source, metadata
    )


def _number(value: bytes, at: int) -> tuple[int, int]:
    raw = shift = 0
    while True:
        byte = value[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return raw >> 1 ^ -(raw & 1), at
        shift += 7


def _text(value: bytes, at: int) -> tuple[bytes, int]:
    length, at = _number(value, at)
    return value[at : at + length], at + length


def _map(value: bytes, at: int) -> list[tuple[bytes, bytes]]:
    pairs = []
    count, at = _number(value, at)
    while count:
        if count < 0:  # then the block's size in bytes follows
            _, at = _number(value, at)
        for _ in range(abs(count)):
            key, at = _text(value, at)
            text, at = _text(value, at)
            pairs.append((key, text))
        count, at = _number(value, at)
    return pairs
