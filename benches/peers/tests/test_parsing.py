"""What is read: /proc, Avro, and what is written for COPY."""

import os
import unittest
import uuid

from peers import copying, processes
from peers.processes import MICROS_PER_TICK, Stat
from peers.transfers import accounts_for
from peers.workload import HEADER_BYTES, Transaction, decode

ID = "0197f000-0000-7000-8000-000000000001"
ROW = Transaction(ID.encode(), b"payment", b"a", b"b", 12345, b"EUR", -1, b"", b"bank", [(b"channel", b"web")])


def number(value: int) -> bytes:
    """Avro's zigzag."""
    raw = value << 1 ^ value >> 63
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*out, raw])


def text(value: bytes) -> bytes:
    """Avro's string."""
    return number(len(value)) + value


def avro(row: Transaction, blocks_have_sizes: bool = False) -> bytes:
    """The opposite of decode."""
    pairs = b"".join(text(key) + text(value) for key, value in row.metadata)
    count = len(row.metadata)
    block = number(-count) + number(len(pairs)) if blocks_have_sizes else number(count)
    return b"".join(
        [
            b"\xc3\x01" + bytes(HEADER_BYTES - 2),
            *map(text, row[:4]),
            number(row.amount),
            text(row.currency),
            number(row.occurred_at),
            text(row.reference),
            text(row.source),
            block + pairs + b"\0",
        ]
    )


class Avro(unittest.TestCase):
    """Single-object encoding."""

    def test_a_transaction_is_read_field_by_field(self) -> None:
        self.assertEqual(decode(avro(ROW)), ROW)

    def test_a_block_of_a_map_may_have_its_size_before_it(self) -> None:
        self.assertEqual(decode(avro(ROW, blocks_have_sizes=True)), ROW)

    def test_large_and_negative_numbers_are_read(self) -> None:
        row = ROW._replace(amount=10**15, occurred_at=-(2**62))
        self.assertEqual(decode(avro(row)), row)

    def test_another_encoding_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "not Avro"):
            decode(b'{"id":"x"}')


class Copy(unittest.TestCase):
    """Binary COPY."""

    def test_a_row_is_as_long_as_its_fields_say(self) -> None:
        encoded = copying.encode([ROW])
        self.assertTrue(encoded.startswith(copying.SIGNATURE) and encoded.endswith(copying.TRAILER))
        row = encoded[len(copying.SIGNATURE) : -len(copying.TRAILER)]
        fields, at = [], 2
        while at < len(row):
            length = int.from_bytes(row[at : at + 4], "big", signed=True)
            at += 4
            fields.append(None if length < 0 else row[at : at + length])
            at += max(0, length)
        self.assertEqual(at, len(row))
        self.assertEqual(len(fields), int.from_bytes(row[:2], "big"))
        self.assertEqual(fields[0], (12345).to_bytes(8, "big"))
        self.assertEqual(fields[2], uuid.UUID(ID).bytes)
        self.assertEqual(fields[3:], [b"EUR", b"a", b"b", b"payment", b"bank", None, b'{"channel":"web"}'])


class Accounts(unittest.TestCase):
    """Opening balances."""

    def test_every_account_is_there_with_all_that_it_pays(self) -> None:
        self.assertEqual(accounts_for([("a", "b", 5), ("a", "c", 7), ("b", "a", 1)]), [("a", 12), ("b", 1), ("c", 0)])


class Proc(unittest.TestCase):
    """/proc."""

    def test_a_name_may_hold_anything(self) -> None:
        line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 12 34 56 78 20 0 1 0 100 0 0"
        expected = Stat(parent=7, own=46 * MICROS_PER_TICK, ended_children=134 * MICROS_PER_TICK)
        self.assertEqual(processes.parse_stat(line), expected)

    def test_this_process_has_memory_and_its_tree_costs_no_less_than_itself(self) -> None:
        own = os.getpid()
        self.assertGreater(processes.peak_resident_kib(own), 0)
        # Read first: this process goes on using the CPU between the two.
        itself = processes.cpu(own)
        self.assertGreaterEqual(processes.tree_cpu(own), itself)


if __name__ == "__main__":
    unittest.main()
