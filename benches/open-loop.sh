#!/usr/bin/env bash
# What clients wait for at fixed offered rates, over HTTP and straight through Kafka: builds everything, measures on the
# servers that MILLRACE_BROKERS and DATABASE_URL name, else on servers of its own, and removes those whatever happens.
#
#   benches/open-loop.sh [FLAG..]        the flags of `open-loop`; --help shows them once it is built
#
#   benches/open-loop.sh                                       the suite: eight loads, half a minute each
#   benches/open-loop.sh --shape single --rate 5000 --runs 3
#   benches/open-loop.sh --dev --shape single,ndjson --rate 1000
#   benches/open-loop.sh --millrace PATH --seconds 5           a millrace that is built already
#   benches/open-loop.sh --report benches/results/open-loop.jsonl
#   benches/open-loop.sh --plot target/plots benches/results/open-loop.jsonl

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/lib.sh
. benches/lib.sh

case ${1:-} in -h | --help) explain open-loop open-loop; exit ;; esac
measure open-loop "$@"
