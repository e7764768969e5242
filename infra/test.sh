#!/usr/bin/env bash
# The test command: format, lints and all tests, against a real Kafka and Postgres that it starts and stops itself.
# Needs Rust (rustup); as root on Debian or Ubuntu it installs whatever else is missing.
#
#   infra/test.sh
#
# Tests find the servers in MILLRACE_BROKERS and DATABASE_URL, a Python with Kafka and Avro clients in
# MILLRACE_TEST_PYTHON, with Schemathesis beside it, and a browser in MILLRACE_CHROMIUM. Those that need servers of
# their own start them with infra/local/up.sh in a directory below MILLRACE_TEST_DIR, which is cleaned up after them.
# The last line is "N passed, M failed".

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/local/lib.sh"

WORK=$REPO/target/local-test-$$
TEST_LOG=$WORK/cargo-test.log
JOB=''

main() {
    case ${1:-} in
        '') ;;
        -h | --help) help ;;
        *) usage_error "unknown argument: $1" ;;
    esac
    cd "$REPO"
    mkdir -p "$WORK"
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    export SQLX_OFFLINE=true MILLRACE_TEST_DIR=$WORK

    stage "tools" find_tools
    stage "format" cargo fmt --all --check
    stage "servers" "$HERE/up.sh" --dir "$WORK/main"
    set -a
    # shellcheck source=/dev/null
    . "$WORK/main/env"
    set +a
    stage "sqlx queries" infra/sqlx.sh check
    stage "lints" cargo clippy --workspace --all-targets -- -D warnings
    stage "build" cargo build
    stage "python" make_venv
    MILLRACE_TEST_PYTHON=$(venv)/bin/python
    export MILLRACE_TEST_PYTHON
    stage "peers' driver" benches/peers/run.sh --test
    stage "browser" make_browser
    find_chromium
    local failed=0
    try "tests" run_tests || failed=1
    try "planted bugs" run_planted || failed=1
    [ $failed = 0 ] || show_server_logs
    local result
    result=$(sum_up "$TEST_LOG") || failed=1
    cleanup
    say "== in all: $SECONDS s"
    say "$result"
    return $failed
}

# stage NAME COMMAND..: ends the run when it fails.
stage() { try "$@" || { local code=$?; say "FAILED: $1"; exit "$code"; }; }

# try NAME COMMAND..: as a job of its own, so that a signal to this script ends it at once, with all it started.
try() {
    local name=$1 start=$SECONDS code=0
    shift
    say "== $name"
    set -m
    "$@" </dev/null &
    JOB=$!
    set +m
    wait "$JOB" || code=$?
    JOB=''
    say "== $name: $((SECONDS - start)) s"
    return "$code"
}

cleanup() {
    trap '' INT TERM HUP
    [ -z "$JOB" ] || { kill -- "-$JOB" 2>/dev/null || true; wait "$JOB" || true; }
    local settings
    for settings in "$WORK"/*/settings; do
        [ ! -f "$settings" ] || "$HERE/down.sh" --dir "${settings%/settings}" >/dev/null || true
    done
    rm -rf "$WORK"
}

find_tools() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs)"
    local missing=()
    { command -v cc && command -v make; } >/dev/null || missing+=(build-essential)
    command -v perl >/dev/null || missing+=(perl)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    { command -v node && command -v npm; } >/dev/null || missing+=(nodejs npm)
    find_chromium || missing+=(chromium)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
    find_chromium || die "no Chromium is found: name its executable in MILLRACE_CHROMIUM"
}

find_chromium() {
    local name
    for name in "${MILLRACE_CHROMIUM:-}" chromium chromium-browser google-chrome; do
        MILLRACE_CHROMIUM=$(command -v "${name:-/}") || continue
        export MILLRACE_CHROMIUM
        return
    done
    unset MILLRACE_CHROMIUM
    return 1
}

venv() { say "$CACHE/python-$(sha256sum <infra/test/requirements.txt | head -c 12)"; }

# One virtual environment per user and list of packages; made again when it does not work (another Python by now).
make_venv() {
    local venv
    venv=$(venv)
    mkdir -p "$CACHE"
    exec 8>"$venv.lock"
    flock 8
    if "$venv/bin/python" -c 'import confluent_kafka, fastavro, schemathesis' 2>/dev/null; then return; fi
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r infra/test/requirements.txt
}

# What drives the browser; fetched again when the list of packages has changed.
make_browser() {
    cd infra/test/browser
    [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --loglevel=error --no-audit --no-fund
}

run_tests() { cargo test --workspace --no-fail-fast 2>&1 | tee "$TEST_LOG"; }

# The ledger with deliberate bugs is a build of its own: nothing else may have them.
run_planted() { cargo test -p millrace-simulation --features planted-bugs --test planted 2>&1 | tee -a "$TEST_LOG"; }

# sum_up LOG: one line for all test programs; false when a test failed or there were none.
sum_up() {
    sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        /^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1); if ($i ~ /^failed/) failed += $(i - 1) } }
        END { printf "%d passed, %d failed\n", passed, failed; exit !(passed > 0 && failed == 0) }'
}

show_server_logs() {
    local settings
    for settings in "$WORK"/*/settings; do
        [ -f "$settings" ] || continue
        # shellcheck disable=SC2154 # settings has it
        (DIR=${settings%/settings}; load_settings; tail -n 40 "$DIR"/kafka-*/log "$postgres_home/log" || true)
    done
}

main "$@"
