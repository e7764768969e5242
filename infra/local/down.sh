#!/usr/bin/env bash
# Stops the servers that infra/local/up.sh started in DIR and removes their data. Does nothing if there are none.
#
#   infra/local/down.sh [--dir DIR]     (default: target/local)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

while [ $# -gt 0 ]; do
    case $1 in
        --dir) set_dir "${2:-}"; shift 2 ;;
        -h | --help) help ;;
        *) usage_error "unknown argument: $1" ;;
    esac
done

if [ ! -f "$DIR/settings" ]; then
    say "nothing runs in $DIR"
    exit 0
fi
lock_dir
load_settings
remove_all
say "stopped and removed $DIR"
