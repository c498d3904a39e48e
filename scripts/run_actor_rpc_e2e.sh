#!/bin/sh
# Three processes of the experimental runtime: a scheduler, a worker and a client, over shared memory and over gRPC.
# Prints their events as JSON lines; ends with "ok".
# usage: scripts/run_actor_rpc_e2e.sh        (PYTHON and PYTHONPATH may say which Python and packages)
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
address="unix:$folder/socket"

# Takes the place of the shell that calls it: call it in the background, or in parentheses.
run() {
    exec env PYTHONPATH="${PYTHONPATH:-core:experimental}" "${PYTHON:-.venv/bin/python}" -m velaria_experimental "$@" \
        --token-file "$folder/token"
}

wait_for() {
    tries=0
    until grep -q "$1" "$2"; do
        tries=$((tries + 1))
        [ "$tries" -lt 3000 ] || { echo "no $1 in $2" >&2; exit 1; }
        sleep 0.1
    done
}

finish() {
    code=$?
    kill $processes 2>/dev/null || true
    wait
    rm -rf "$folder"
    exit "$code"
}
processes=
trap finish EXIT INT TERM

run scheduler --listen "$address" --journal "$folder/journal" --no-auto-worker >"$folder/scheduler" </dev/null &
processes=$!
wait_for '"listening"' "$folder/scheduler"
run worker --connect "$address" --node-id worker-1 --shared-memory-min-bytes 0 >"$folder/worker" </dev/null &
processes="$processes $!"
wait_for '"role": "worker"' "$folder/scheduler"

for transport in --shared-memory-min-bytes=0 --no-shared-memory; do
    (run client --connect "$address" --timeout-ms 300000 "$transport" --payload "b
a
b" --sql "SELECT line, count(*) AS n FROM payload GROUP BY line ORDER BY line") >"$folder/client"
    cat "$folder/client"
    grep -q '"mode": "workers"' "$folder/client"
    grep -q '"payload": \[{"line": "a", "n": 1}, {"line": "b", "n": 2}\]' "$folder/client"
done
(run status --connect "$address")
cat "$folder/scheduler" "$folder/worker"
echo ok
