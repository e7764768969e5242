# For the scripts beside it: builds a program, starts servers where none are given, runs it, and removes the
# servers whatever happens.
# shellcheck shell=bash

running='' own_servers=no

# measure PROGRAM [FLAG..]
measure() {
    local program=$1 flag
    shift
    target=${CARGO_TARGET_DIR:-target}
    local packages=(-p millrace-benches -p millrace) needs_servers=yes
    [ -z "${MILLRACE_BROKERS:-}" ] || [ -z "${DATABASE_URL:-}" ] || needs_servers=no
    for flag in "$@"; do
        case $flag in
            --millrace | --millrace=*) packages=(-p millrace-benches) ;;
            -h | --help | --report | --report=* | --plot | --plot=*) packages=(-p millrace-benches) needs_servers=no ;;
            --dev) needs_servers=no ;;
        esac
    done
    cargo build --release --locked "${packages[@]}"

    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    [ "$needs_servers" = no ] || start_servers "$target/$program-servers"
    # Beside this shell, so that a signal to it alone is passed on.
    "$target/release/$program" "$@" &
    running=$!
    local code=0
    wait "$running" || code=$?
    running=''
    return "$code"
}

# start_servers DIR: and their addresses are in the environment; `finish` removes them.
start_servers() {
    servers=$1
    # Those that run there already belong to somebody who stops them.
    [ -f "$servers/env" ] || own_servers=yes
    infra/local/up.sh --bench --dir "$servers"
    set -a
    # shellcheck source=/dev/null
    . "$servers/env"
    set +a
}

# sql STATEMENT: in their database.
sql() { psql -XAtqw "$DATABASE_URL" -c "$1"; }

# So that settings take effect that are read at the start.
restart_postgres() {
    infra/local/postgres.sh stop --dir "$servers" >/dev/null
    infra/local/postgres.sh start --dir "$servers" >/dev/null
}

finish() {
    if [ -n "$running" ]; then
        kill -TERM "$running" 2>/dev/null || true
        wait "$running" || true
    fi
    [ "$own_servers" = no ] || infra/local/down.sh --dir "$servers"
}

# explain SCRIPT PROGRAM: the script's own words, then the program's flags, if it is built.
explain() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "benches/$1.sh"
    local program=${CARGO_TARGET_DIR:-target}/release/$2
    if [ -x "$program" ]; then "$program" --help; fi
}
