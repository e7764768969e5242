#!/usr/bin/env python3
"""Publishes transactions as other people's programs do: confluent-kafka, fastavro, nothing of Millrace.

    independent_producer.py BROKERS TOPIC SCHEMA.avsc records
    independent_producer.py BROKERS TOPIC SCHEMA.avsc transactions

records       Avro in single-object encoding and JSON, each with a unique id; one of them again in the
              other encoding; one in the wrong partition; one with the wrong key
transactions  with a transactional producer: committed and aborted ones in turn, an aborted tail

Prints what it did as JSON:
    posted      id -> [debit_account, credit_account, amount, currency, occurred_at in microseconds,
                       reference, source, metadata]
    duplicates  how many records repeat one of them
    misrouted   ids in the order in which they were sent
    aborted     how many records were written and aborted
"""

import datetime
import io
import json
import sys
import uuid

import fastavro
from confluent_kafka import Producer
from fastavro.schema import fingerprint, to_parsing_canonical_form

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
JSON_HEADER = [("content-type", b"application/json")]


class Topic:
    """Delivers records and remembers where they went."""

    def __init__(self, brokers, name, schema_file, **properties):
        self.producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random",
                                  "acks": "all", **properties})
        self.name = name
        with open(schema_file, encoding="utf-8") as file:
            text = json.load(file)
        self.schema = fastavro.parse_schema(text)
        # The specification's header: C3 01 and the CRC-64-AVRO of the canonical form, little-endian.
        # fastavro prints those bytes in this order.
        assert fingerprint('"int"', "CRC-64-AVRO") == "8f5c393f1ad57572"
        self.header = b"\xc3\x01" + bytes.fromhex(
            fingerprint(to_parsing_canonical_form(text), "CRC-64-AVRO"))
        self.failures = []
        self.partition_of_last = None

    def avro(self, transaction):
        out = io.BytesIO()
        out.write(self.header)
        fastavro.schemaless_writer(out, self.schema, transaction)
        return out.getvalue()

    def send(self, key, value, **where):
        def delivered(error, message):
            if error is not None:
                self.failures.append(str(error))
            else:
                self.partition_of_last = message.partition()

        self.producer.produce(self.name, key=key, value=value, on_delivery=delivered, **where)
        self.producer.poll(0)

    def flush(self):
        self.producer.flush(60)
        assert not self.failures, self.failures


def transaction(number, debit, credit):
    return {
        "id": uuid.UUID(int=(0x0190 << 112) | (7 << 76) | (2 << 62) | number),
        "kind": "transfer",
        "debit_account": debit,
        "credit_account": credit,
        "amount": 1 + number * 7919 % 1_000_000,
        "currency": ["EUR", "USD", "JPY", "CZK"][number % 4],
        "occurred_at": EPOCH + datetime.timedelta(days=20_000, microseconds=1 + number * 86_413_337),
        "reference": ["", "Příjem č. 5", "日本語 😀", "plain"][number % 4],
        "source": "python",
        "metadata": {} if number % 2 else {"ключ": "значение", "b": "2", "a": "1"},
    }


def micros(time):
    return (time - EPOCH) // datetime.timedelta(microseconds=1)


def as_json(record):
    text = record["occurred_at"].isoformat(timespec="microseconds").replace("+00:00", "Z")
    return json.dumps({**record, "id": str(record["id"]), "occurred_at": text}).encode()


def key_of(record):
    """The documented rule."""
    for account in (record["debit_account"], record["credit_account"]):
        if not account.startswith("external:"):
            return account.encode()
    return str(record["id"]).encode()


def shown(record):
    return [record["debit_account"], record["credit_account"], record["amount"], record["currency"],
            micros(record["occurred_at"]), record["reference"], record["source"], record["metadata"]]


def accounts(number):
    if number % 10 == 0:
        return "external:world", "external:other"
    if number % 10 == 1:
        return "external:world", f"account-{number % 37}"
    # Long ids, and every length modulo 4.
    return f"account-{number % 37}" + "x" * (number % 50), f"other-{number % 11}"


def send_records(topic):
    posted, number = {}, 0
    for number in range(600):
        record = transaction(number, *accounts(number))
        if number % 3 == 0:
            topic.send(key_of(record), as_json(record), headers=JSON_HEADER)
        else:
            topic.send(key_of(record), topic.avro(record))
        posted[str(record["id"])] = shown(record)
    # The same transaction in the other encoding is the same transaction.
    for again, encode in ((0, topic.avro), (3, topic.avro), (1, as_json)):
        record = transaction(again, *accounts(again))
        headers = JSON_HEADER if encode is as_json else []
        topic.send(key_of(record), encode(record), headers=headers)

    good = transaction(1000, "probe", "other-0")
    topic.send(key_of(good), topic.avro(good))
    topic.flush()
    posted[str(good["id"])] = shown(good)
    wrong_partition = transaction(1001, "probe", "other-0")
    elsewhere = (topic.partition_of_last + 1) % 12
    topic.send(key_of(wrong_partition), topic.avro(wrong_partition), partition=elsewhere)
    wrong_key = transaction(1002, "probe", "other-0")
    topic.send(b"other-0", topic.avro(wrong_key))
    topic.flush()
    misrouted = [str(wrong_partition["id"]), str(wrong_key["id"])]
    return {"posted": posted, "duplicates": 3, "misrouted": misrouted, "aborted": 0}


def send_transactions(topic):
    producer, posted, aborted, number = topic.producer, {}, 0, 0
    producer.init_transactions(60)
    for count, commits in ((40, True), (60, False), (1, True), (0, True), (300, False), (80, True), (90, False)):
        producer.begin_transaction()
        for _ in range(count):
            record = transaction(number, *accounts(number))
            topic.send(key_of(record), topic.avro(record))
            number += 1
            if commits:
                posted[str(record["id"])] = shown(record)
        # Flushed first, so that what is aborted is really in the log.
        topic.flush()
        if commits:
            producer.commit_transaction(60)
        else:
            producer.abort_transaction(60)
            aborted += count
    return {"posted": posted, "duplicates": 0, "misrouted": [], "aborted": aborted}


def main():
    brokers, name, schema_file, mode = sys.argv[1:]
    if mode == "records":
        result = send_records(Topic(brokers, name, schema_file))
    else:
        topic = Topic(brokers, name, schema_file, **{"transactional.id": name})
        result = send_transactions(topic)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
