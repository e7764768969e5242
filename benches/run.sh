#!/usr/bin/env bash
# Builds millrace and the benchmark, and runs it: on the servers that MILLRACE_BROKERS and DATABASE_URL name,
# else on servers of its own, which it stops and removes at the end whatever happens.
#
#   benches/run.sh [FLAG..]        the flags of the benchmark; --help shows them once it is built
#
#   benches/run.sh                 the canonical workload once
#   benches/run.sh --suite canonical --runs 3 --results benches/results/canonical.jsonl
#   benches/run.sh --report benches/results/flat.jsonl
#   benches/run.sh --plot target/plots benches/results/flat.jsonl
#   benches/run.sh --millrace PATH --suite drain      measures a millrace that is built already

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/lib.sh
. benches/lib.sh

case ${1:-} in -h | --help) explain run bench; exit ;; esac
measure bench "$@"
