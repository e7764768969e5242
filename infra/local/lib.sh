# shellcheck shell=bash disable=SC2034,SC2154 # variables that the scripts and DIR/settings set or use
# What the scripts beside this file share. A directory (DIR) holds one instance: a Kafka of 1 or 3 nodes
# and a Postgres. Its files: settings (what it was created with), env (for clients; written last), ways (of up.sh),
# kafka-N/ (server.properties, data, log, pid) and postgres/ (elsewhere when DIR is closed to its user).
# Linux only: it reads /proc and needs setsid, setpriv and flock of util-linux.

set -euo pipefail

KAFKA_VERSION=4.1.0
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$HERE/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/millrace
KAFKA_LIBS=$CACHE/kafka-$KAFKA_VERSION
PORT_CLAIMS=/tmp/millrace-ports-$UID
DIR=$REPO/target/local
JOBS=() # processes in the background that still make files in DIR

START_TIMEOUT_S=90 # a restart after kill -9 recovers its log and waits for its old session first
STOP_TIMEOUT_S=20  # after that kill -9
QUORUM_GONE_S=5    # the same for all of several Kafka nodes at once: the last has no quorum left to say good-bye to

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { warn "$*"; exit 1; }
usage_error() { warn "$* (see --help)"; exit 64; }

# Prints the comment at the head of the running script.
help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0; }

set_dir() { [ -n "$1" ] || usage_error "--dir needs a directory"; DIR=$(realpath -m -- "$1"); }

# One script at a time in DIR. The lock is on the directory itself, which down.sh removes: make it again.
lock_dir() { mkdir -p "$DIR"; exec 9<"$DIR"; flock 9; mkdir -p "$DIR"; }

# lock_part PART: the same for one file or directory of DIR, so that Kafka and Postgres go up and down independently.
lock_part() {
    exec 9<"$DIR" 8<"$DIR/$1"
    flock --shared 9
    flock 8
}

load_settings() {
    [ -f "$DIR/settings" ] || die "no servers in $DIR: start them with infra/local/up.sh --dir $DIR"
    # shellcheck source=/dev/null
    . "$DIR/settings" # brokers, bench, ways, postgres_home, postgres_port
}

# --- missing programs

# apt_install PACKAGE..: as root on Debian or Ubuntu; elsewhere it says what is missing.
apt_install() {
    if [ "$UID" != 0 ] || ! command -v apt-get >/dev/null; then
        die "missing on this machine: $* (names of the Debian/Ubuntu packages; install them and try again)"
    fi
    warn "installing $* (this can take some minutes)"
    local log
    log=$(mktemp)
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends --no-upgrade "$@"; } \
        </dev/null >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "apt-get could not install: $* (all it said: $log)"
    }
    rm -f "$log"
}

java_bin() { if [ -n "${JAVA_HOME:-}" ]; then say "$JAVA_HOME/bin/java"; else say java; fi; }

java_is_recent() {
    local major
    major=$({ "$(java_bin)" -version || true; } 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge 17 ]
}

find_java() {
    java_is_recent || apt_install openjdk-17-jre-headless
    java_is_recent || die "need Java 17 or later, and $(java_bin) is not (JAVA_HOME, or else PATH, says which)"
}

# Kafka's jars, fetched once per user; complete or absent, so two downloads at once do no harm.
find_kafka() {
    [ ! -d "$KAFKA_LIBS" ] || return 0
    command -v mvn >/dev/null || apt_install maven
    warn "fetching Kafka $KAFKA_VERSION into $KAFKA_LIBS"
    mkdir -p "$CACHE"
    local new
    new=$(mktemp -d "$KAFKA_LIBS.XXXXXX")
    mvn -q -B -Dstyle.color=never -f "$HERE/kafka-pom.xml" dependency:copy-dependencies -Dkafka.version="$KAFKA_VERSION" \
        -DoutputDirectory="$new" </dev/null >&2 || { rm -rf "$new"; die "maven could not fetch Kafka $KAFKA_VERSION"; }
    mv -T "$new" "$KAFKA_LIBS" 2>/dev/null || rm -rf "$new"
}

postgres_bin_or_nothing() {
    local bin
    # pg_config may belong to a client package: believe it only when a server is beside it.
    for bin in "$(pg_config --bindir 2>/dev/null)" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
        if [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ]; then
            say "$bin"
            return
        fi
    done
}

# Sets PG_BIN, and PG_AS to what must stand before a command of Postgres: it refuses root.
find_postgres() {
    PG_AS=()
    PG_BIN=$(postgres_bin_or_nothing)
    [ -n "$PG_BIN" ] || { apt_install postgresql; PG_BIN=$(postgres_bin_or_nothing); }
    [ -n "$PG_BIN" ] || die "no Postgres server (initdb, postgres) found: install the package postgresql"
    [ "$UID" = 0 ] || return 0
    getent passwd postgres >/dev/null || die "Postgres refuses to run as root and there is no user postgres: create one"
    PG_AS=(setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/)
}

# --- processes

# alive PID MARK: runs, and is ours: MARK is in its command line (process ids are used again; a zombie has none).
alive() { [ -n "$1" ] && tr '\0' ' ' 2>/dev/null </proc/"$1"/cmdline | grep -qF -- "$2"; }

# wait_gone SECONDS PID MARK
wait_gone() {
    local tries
    for ((tries = $1 * 20; tries > 0; tries--)); do
        alive "$2" "$3" || return 0
        sleep 0.05
    done
    return 1
}

# Becomes the given command in a session of its own, with no file of the caller open but 0, 1 and 2.
exec_detached() {
    local fd
    for fd in /proc/"$BASHPID"/fd/*; do
        fd=${fd##*/}
        if ((fd > 2)); then eval "exec $fd>&-"; fi
    done
    exec setsid "$@"
}

# --- ports

accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets PORT to a free one and claims it for DIR until down.sh. The claim, a symbolic link, is atomic and
# holds while a fault test has the server down; the range is below the one used for outgoing connections.
claim_port() {
    mkdir -p "$PORT_CLAIMS"
    local tries link
    for ((tries = 0; tries < 1000; tries++)); do
        PORT=$((15000 + (RANDOM << 15 | RANDOM) % 15000))
        link=$PORT_CLAIMS/$PORT
        [ ! -L "$link" ] || [ -d "$link" ] || rm -f "$link" # left by a directory that is gone
        if ! accepts "$PORT" && ln -sT "$DIR" "$link" 2>/dev/null; then return; fi
    done
    die "found no free port between 15000 and 30000"
}

release_ports() {
    local link
    for link in "$PORT_CLAIMS"/*; do
        if [ "$(readlink "$link" || true)" = "$DIR" ]; then rm -f "$link"; fi
    done
}

# --- Kafka: nodes 1 to $brokers, each broker and controller

nodes() { seq "$brokers"; }
ways() { seq 1 "$ways"; }
kafka_conf() { say "$DIR/kafka-$1/server.properties"; }
kafka_pid() { cat "$DIR/kafka-$1/pid" 2>/dev/null || true; }
kafka_alive() { alive "$(kafka_pid "$1")" "$(kafka_conf "$1")"; }
kafka_address() { sed -n 's|^advertised.listeners=PLAINTEXT://\([^,]*\).*|\1|p' "$(kafka_conf "$1")"; }

kafka_create() {
    local node session_timeout_ms=9000 min_isr=1 voters='' broker_ports=() controller_ports=() listeners advertised map
    [ "$brokers" = 1 ] || min_isr=2
    [ "$bench" = yes ] || session_timeout_ms=3000 # a killed node may not come back before it ends
    for node in $(nodes); do
        claim_port; broker_ports[node]=$PORT
        claim_port; controller_ports[node]=$PORT
        voters+=${voters:+,}$node@127.0.0.1:$PORT
    done
    local cluster_id formats=()
    cluster_id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    for node in $(nodes); do
        mkdir -p "$DIR/kafka-$node"
        kafka_ways "$node"
        cat >"$(kafka_conf "$node")" <<CONF
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:${broker_ports[node]},CONTROLLER://127.0.0.1:${controller_ports[node]}$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:${broker_ports[node]}$advertised
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT$map
log.dirs=$DIR/kafka-$node/data
auto.create.topics.enable=false
default.replication.factor=$brokers
min.insync.replicas=$min_isr
offsets.topic.replication.factor=$brokers
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=$brokers
transaction.state.log.min.isr=$min_isr
transaction.state.log.num.partitions=10
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=$session_timeout_ms
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.check.interval.ms=86400000
log.cleaner.dedupe.buffer.size=16777216
CONF
        # As many threads as the two cores carry: handing a request over to one of many costs more than waiting for it.
        [ "$bench" = no ] || printf '%s\n' num.network.threads=1 num.io.threads=2 >>"$(kafka_conf "$node")"
        # The first character is not part of the draw: an id that begins with "-" would be read as a flag.
        java_kafka kafka.tools.StorageTool format -t "M${cluster_id:1}" -c "$(kafka_conf "$node")" \
            </dev/null >"$DIR/kafka-$node/log" 2>&1 &
        formats[node]=$!
        JOBS+=($!)
    done
    for node in $(nodes); do
        wait "${formats[node]}" || { tail -n 20 "$DIR/kafka-$node/log" >&2; die "could not format the storage of Kafka node $node"; }
    done
}

# kafka_ways NODE: adds a listener for each way, which is advertised at another port: what listens there may
# delay, hold or cut what it forwards. Sets listeners, advertised and map to what the lists go on with.
kafka_ways() {
    local way name
    listeners='' advertised='' map=''
    for way in $(ways); do
        name=WAY$way
        map+=,$name:PLAINTEXT
        claim_port
        listeners+=,$name://127.0.0.1:$PORT
        printf '%s %s ' "$way" "127.0.0.1:$PORT" >>"$DIR/ways"
        claim_port
        advertised+=,$name://127.0.0.1:$PORT
        say "127.0.0.1:$PORT" >>"$DIR/ways"
    done
}

java_kafka() { "$(java_bin)" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_LIBS/*" "$@"; }

# kafka_start NODE..: returns when all of them serve.
kafka_start() {
    local node options=(-Xmx512m -XX:TieredStopAtLevel=1) from=()
    [ "$bench" = no ] || options=(-Xms1g -Xmx1g)
    options+=(-Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS")
    for node in "$@"; do
        if kafka_alive "$node"; then continue; fi
        from[node]=$(stat -c %s "$DIR/kafka-$node/log")
        (exec_detached "$(java_bin)" "${options[@]}" -cp "$KAFKA_LIBS/*" kafka.Kafka "$(kafka_conf "$node")") \
            </dev/null >>"$DIR/kafka-$node/log" 2>&1 &
        say $! >"$DIR/kafka-$node/pid"
    done
    for node in "${!from[@]}"; do kafka_wait_ready "$node" "${from[node]}"; done
}

# kafka_wait_ready NODE FROM: the line is logged when the broker is unfenced and its listeners are open.
kafka_wait_ready() {
    local tries log=$DIR/kafka-$1/log why="does not serve after $START_TIMEOUT_S s"
    for ((tries = START_TIMEOUT_S * 10; tries > 0; tries--)); do
        if tail -c "+$(($2 + 1))" "$log" | grep -q 'Kafka Server started' && accepts "$(kafka_port "$1")"; then return; fi
        # At once after the fork the process is still this shell and not yet Java.
        if ((tries < START_TIMEOUT_S * 10 - 10)) && ! kafka_alive "$1"; then why="ended"; break; fi
        sleep 0.1
    done
    tail -n 30 "$log" >&2
    die "Kafka node $1 $why; its log is above and in $log"
}

kafka_port() { local address; address=$(kafka_address "$1"); say "${address##*:}"; }

# kafka_signal SIGNAL TIMEOUT_S NODE..: returns when all of them are gone.
kafka_signal() {
    local signal=$1 timeout_s=$2 node
    shift 2
    for node in "$@"; do
        if kafka_alive "$node"; then kill -s "$signal" "$(kafka_pid "$node")" 2>/dev/null || true; fi
    done
    for node in "$@"; do
        if ! wait_gone "$timeout_s" "$(kafka_pid "$node")" "$(kafka_conf "$node")"; then
            warn "Kafka node $node did not stop in $timeout_s s: kill -9"
            kill -KILL "$(kafka_pid "$node")" 2>/dev/null || true
            wait_gone 10 "$(kafka_pid "$node")" "$(kafka_conf "$node")" || die "Kafka node $node cannot be killed"
        fi
    done
}

# --- Postgres

# Where the data goes: below DIR, unless we are root and the postgres user cannot enter that (a clone in /root).
# /var/lib and not /tmp, which is memory on some machines: fsync would cost nothing there.
postgres_home_new() {
    if "${PG_AS[@]}" test -x "$DIR"; then say "$DIR/postgres"; else mktemp -u /var/lib/millrace-postgres.XXXXXX; fi
}

postgres_pid() { head -n 1 "$postgres_home/data/postmaster.pid" 2>/dev/null || true; }
postgres_alive() { alive "$(postgres_pid)" "$postgres_home/data"; }

postgres_create() {
    mkdir -p "$postgres_home"
    [ "$UID" != 0 ] || chown postgres: "$postgres_home"
    local data=$postgres_home/data wal_compression=lz4 socket_dir=$postgres_home/data
    (cd / && "${PG_AS[@]}" "$PG_BIN/initdb" -D "$data" -U postgres --auth=trust -E UTF8 --locale=C --no-sync) \
        </dev/null >"$DIR/initdb.log" 2>&1 || { tail -n 20 "$DIR/initdb.log" >&2; die "initdb failed"; }
    (cd / && "${PG_AS[@]}" "$PG_BIN/postgres" -D "$data" -c wal_compression=lz4 -C port) >/dev/null 2>&1 || wal_compression=on
    [ ${#socket_dir} -le 80 ] || socket_dir='' # a socket's path has at most 107 bytes; then TCP only
    cat "$REPO/infra/postgres/postgresql.conf" - >>"$data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $postgres_port
unix_socket_directories = '$socket_dir'
max_connections = 200
wal_compression = $wal_compression
CONF
    [ "$bench" = yes ] || echo 'shared_buffers = 256MB' >>"$data/postgresql.conf"
    postgres_start
    "$PG_BIN/createdb" -h 127.0.0.1 -p "$postgres_port" -U postgres -w millrace || die "could not create the database millrace"
}

# Returns when it accepts connections (after crash recovery, if it was killed).
postgres_start() {
    if postgres_alive; then return; fi
    (cd / && exec_detached "${PG_AS[@]}" "$PG_BIN/pg_ctl" start -w -t "$START_TIMEOUT_S" -D "$postgres_home/data" -l "$postgres_home/log") \
        </dev/null >/dev/null 2>&1 ||
        { tail -n 20 "$postgres_home/log" >&2; die "Postgres did not start; its log is above"; }
}

# postgres_stop TIMEOUT_S: a fast shutdown: it ends the sessions and writes a checkpoint.
postgres_stop() {
    local pid
    pid=$(postgres_pid)
    if ! postgres_alive; then return; fi
    kill -INT "$pid" 2>/dev/null || true
    wait_gone "$1" "$pid" "$postgres_home/data" || { warn "Postgres did not stop in $1 s: kill -9"; postgres_kill; }
}

# SIGKILL for the server and every process of it, as a crash of the machine would.
postgres_kill() {
    local pid child children
    pid=$(postgres_pid)
    if ! postgres_alive; then return; fi
    children=$(cat /proc/"$pid"/task/"$pid"/children 2>/dev/null || true)
    # shellcheck disable=SC2086 # a list of process ids
    kill -KILL "$pid" $children 2>/dev/null || true
    wait_gone 10 "$pid" "$postgres_home/data" || die "Postgres cannot be killed"
    for child in $children; do
        wait_gone 10 "$child" postgres || die "process $child of Postgres cannot be killed"
    done
    # Where process 1 of a container reaps no zombies, the next start would take the old server for a running one.
    rm -f "$postgres_home/data/postmaster.pid" "$postgres_home/data/.s.PGSQL.$postgres_port.lock"
}

# --- both

# Stops whatever runs in DIR and removes every trace of it.
remove_all() {
    # shellcheck disable=SC2046 # one word per node
    kafka_signal TERM 3 $(nodes) # the data goes: no need for a long good-bye
    postgres_stop 10
    case $postgres_home in
        "$DIR/postgres" | /var/lib/millrace-postgres.*) rm -rf "$postgres_home" ;;
    esac
    rm -rf "$DIR"/kafka-[1-9] "$DIR/initdb.log" "$DIR/env" "$DIR/ways"
    release_ports
    rm -f "$DIR/settings"
    rmdir "$DIR" 2>/dev/null || true # not if somebody else keeps files there
}
