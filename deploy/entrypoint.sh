#!/bin/sh
# Starts a node of Ray beside the command, in the container of the process that leads runs: Ray takes its work from
# processes on one of its nodes only.
#
#   DSIR_RAY=head        this container is the head of a cluster
#   DSIR_RAY=host:port   it joins the cluster whose head is there
#
# Either way without cores of its own: they belong to the leading process.
set -eu
case "${DSIR_RAY:-}" in
    "") ;;
    head) ray start --head --port=6379 --num-cpus=0 --include-dashboard=false ;;
    *) ray start --address="$DSIR_RAY" --num-cpus=0 ;;
esac
exec "$@"
