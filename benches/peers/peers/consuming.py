"""Client of `consumer`: a consumer group of one that does nothing with what it gets.

python -m peers.consuming BROKERS TOPIC COUNT GROUP
"""

import sys
import time
from collections.abc import Callable

from confluent_kafka import Consumer

from peers.clients import serve
from peers.workload import CONSUME_MAX, CONSUME_TIMEOUT_S


def drain(consumer: Consumer, count: int) -> dict[str, float]:
    """Counts records. The rate is that of the records after the first call that returned any."""
    first = consumed = 0
    started = time.monotonic()
    while consumed < count:
        messages = consumer.consume(min(count - consumed, CONSUME_MAX), CONSUME_TIMEOUT_S)
        if not messages:
            break
        for message in messages:
            if message.error():
                raise RuntimeError(str(message.error()))
        if not consumed:
            first, started = len(messages), time.monotonic()
        consumed += len(messages)
    return {"arrived": consumed, "seconds": time.monotonic() - started, "first": first}


def main(brokers: str, topic: str, count: str, group: str) -> None:
    """See above."""
    settings = {"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest"}

    def prepare() -> Callable[[], dict[str, float]]:
        consumer = Consumer(settings)

        def work() -> dict[str, float]:
            # Joining the group is part of the work, as it is for all that read Kafka, but not of the rate.
            consumer.subscribe([topic])
            return drain(consumer, int(count))

        return work

    serve(prepare)


if __name__ == "__main__":
    main(*sys.argv[1:])
