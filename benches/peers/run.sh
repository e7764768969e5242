#!/usr/bin/env bash
# Millrace and its peers side by side, on servers of their own, which are stopped and removed at the end whatever
# happens.
#
#   benches/peers/run.sh [FLAG..]     --help shows the flags; MILLRACE_BIN names a binary to use instead of building one
#
#   benches/peers/run.sh --runs 3 --results benches/results/peers.jsonl
#   benches/peers/run.sh --count 200000 --only millrace,debezium-upsert
#   benches/peers/run.sh --report benches/results/peers.jsonl
#   benches/peers/run.sh --test       the driver's own tests, which need no server
#
# Needs what infra/local/up.sh needs, Python 3.11 with venv, and a Java compiler. As root on Debian or Ubuntu it
# installs what is missing.

set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source-path=SCRIPTDIR source=../../infra/local/lib.sh
. infra/local/lib.sh
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. benches/lib.sh

PEERS=benches/peers
TARGET=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
SERVERS=$TARGET/peers-servers
WORK=$TARGET/peers

main() {
    python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        apt_install python3 python3-venv
    make_venv
    local flag
    for flag in "$@"; do
        case $flag in
            -h | --help | --report | --report=*) driver "$@"; return ;;
            --test) python -m unittest discover -s "$PEERS/tests"; return ;;
        esac
    done

    local millrace=${MILLRACE_BIN:-$TARGET/release/millrace}
    [ -n "${MILLRACE_BIN:-}" ] || cargo build --release --locked -p millrace
    find_connect
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    start_servers "$SERVERS"
    driver "$@" --work "$WORK" --servers "$SERVERS" --millrace "$(realpath -- "$millrace")" \
        --connect-jars "$CONNECT_JARS" --connect-classes "$WORK/classes"
}

driver() { python -m peers "$@"; }
python() { PYTHONPATH=$PEERS PYTHONDONTWRITEBYTECODE=1 "$WORK/venv/bin/python" "$@"; }

# A new environment whenever the requirements are others.
make_venv() {
    if cmp -s "$PEERS/requirements.txt" "$WORK/venv/requirements.txt"; then return; fi
    rm -rf "$WORK/venv"
    python3 -m venv "$WORK/venv"
    "$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$PEERS/requirements.txt"
    cp "$PEERS/requirements.txt" "$WORK/venv/"
}

# Sets CONNECT_JARS, fetched once per user and version of the pom; compiles the converter.
find_connect() {
    local pom=$PEERS/connect/pom.xml new
    find_java
    javac -version >/dev/null 2>&1 || apt_install openjdk-17-jdk-headless
    CONNECT_JARS=$CACHE/connect-$(sha256sum <"$pom" | head -c 12)
    if [ ! -d "$CONNECT_JARS" ]; then
        command -v mvn >/dev/null || apt_install maven
        warn "fetching Kafka Connect and Debezium's sink into $CONNECT_JARS"
        mkdir -p "$CACHE"
        new=$(mktemp -d "$CONNECT_JARS.XXXXXX")
        mvn -q -B -Dstyle.color=never -f "$pom" dependency:copy-dependencies -Dkafka.version="$KAFKA_VERSION" \
            -DoutputDirectory="$new" </dev/null >&2 || { rm -rf "$new"; die "maven could not fetch them"; }
        mv -T "$new" "$CONNECT_JARS" 2>/dev/null || rm -rf "$new"
    fi
    rm -rf "$WORK/classes"
    javac -nowarn -cp "$CONNECT_JARS/*" -d "$WORK/classes" "$PEERS"/connect/src/millrace/peers/*.java
    cp -r "$PEERS/connect/src/META-INF" "$WORK/classes/"
}

main "$@"
