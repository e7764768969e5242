#!/usr/bin/env bash
# Takes the Postgres of DIR down and up again, for fault tests. Returns when it is really down, or accepts connections.
#
#   infra/local/postgres.sh stop|start|kill [--dir DIR]
#
#   stop       fast shutdown: open sessions are ended
#   start      the same port, the same data
#   kill       SIGKILL to the server and all its processes: it must recover from its log at the next start
#   --dir DIR  the instance (default: target/local)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

action=''
while [ $# -gt 0 ]; do
    case $1 in
        stop | start | kill) [ -z "$action" ] || usage_error "one action at a time"; action=$1; shift ;;
        --dir) set_dir "${2:-}"; shift 2 ;;
        -h | --help) help ;;
        *) usage_error "unknown argument: $1" ;;
    esac
done
[ -n "$action" ] || usage_error "say stop, start or kill"
load_settings
lock_part settings

case $action in
    stop) postgres_stop "$STOP_TIMEOUT_S" ;;
    start) find_postgres; postgres_start ;;
    kill) postgres_kill ;;
esac
