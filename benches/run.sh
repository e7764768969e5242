#!/usr/bin/env bash
# Builds millrace and the benchmark, and runs it: on the servers that MILLRACE_BROKERS and DATABASE_URL name,
# else on servers of its own, which it stops and removes at the end whatever happens.
#
#   benches/run.sh [FLAG..]        the flags of the benchmark; --help shows them
#
#   benches/run.sh                 the canonical workload once
#   benches/run.sh --suite canonical --runs 3 --results benches/results/canonical.jsonl
#   benches/run.sh --report benches/results/canonical.jsonl
#   benches/run.sh --plot target/plots benches/results/canonical.jsonl
#   benches/run.sh --millrace PATH --suite drain      measures a millrace that is built already

set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
servers=$target/bench-servers

needs_servers=yes
[ -z "${MILLRACE_BROKERS:-}" ] || [ -z "${DATABASE_URL:-}" ] || needs_servers=no
packages=(-p millrace -p millrace-benches)
for flag in "$@"; do
    case $flag in
        -h | --help | --report | --report=* | --plot | --plot=*) needs_servers=no packages=(-p millrace-benches) ;;
        --millrace | --millrace=*) packages=(-p millrace-benches) ;;
    esac
done

cargo build --release --locked "${packages[@]}"

if [ "$needs_servers" = yes ]; then
    # Servers that run there already belong to somebody who stops them.
    if [ ! -f "$servers/env" ]; then
        trap 'infra/local/down.sh --dir "$servers"' EXIT
        trap 'exit 130' INT TERM HUP
    fi
    infra/local/up.sh --bench --dir "$servers"
    set -a
    # shellcheck source=/dev/null
    . "$servers/env"
    set +a
fi
"$target/release/bench" "$@"
