#!/usr/bin/env bash
# Replaces the ml-backend containers one at a time, without a failed call: a new one comes first, then an old one goes.
# New ones run what `docker compose build` (or pull) made last: this is also how a new release goes live.
#
#   deploy/compose/rolling-restart.sh [options of docker compose, such as -f FILE -f FILE]
#
# By hand, for one container:
#   docker compose up -d --no-deps --no-recreate --scale ml-backend=2 --wait ml-backend
#   sleep 3; docker stop OLD; docker rm OLD
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

service=ml-backend
notice_s=3 # until the gateway knows a new container: its name server's second, then its check's

compose() { docker compose "${options[@]}" "$@"; }

options=("$@")
mapfile -t old < <(compose ps -q "$service")
if [ ${#old[@]} -eq 0 ]; then
  echo "error: no $service is running: docker compose up -d" >&2
  exit 1
fi
for container in "${old[@]}"; do
  compose up -d --no-deps --no-recreate --no-build --scale "$service=$((${#old[@]} + 1))" --wait "$service"
  sleep "$notice_s"
  docker stop "$container" >/dev/null # it says that it is not ready, goes on for 5 s, finishes what is under way
  docker rm "$container" >/dev/null
  echo "replaced ${container:0:12}"
done
