#!/usr/bin/env bash
# What the query API serves beside full ingest, and what each costs the other: builds everything, measures on the servers
# that MILLRACE_BROKERS and DATABASE_URL name, else on servers of its own, and removes those whatever happens.
#
#   benches/query.sh [FLAG..]            the flags of `query`; --help shows them once it is built
#
#   benches/query.sh                                           six kinds of requests by four readers, some ten minutes
#   benches/query.sh --endpoint account,mix --connections 16
#   benches/query.sh --millrace PATH --preload 100000 --count 200000 --seconds 3
#   benches/query.sh --report benches/results/query.jsonl
#   benches/query.sh --plot target/plots benches/results/query.jsonl

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/lib.sh
. benches/lib.sh

case ${1:-} in -h | --help) explain query query; exit ;; esac
measure query "$@"
