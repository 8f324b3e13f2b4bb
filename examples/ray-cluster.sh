#!/usr/bin/env bash
# Encode a dataset on a Ray cluster: one worker for each GPU of all its machines.
# The input and output folders must be the same on every machine (or s3://, gs://, ...).
#
#   on the first machine:    examples/ray-cluster.sh head
#   on every other machine:  examples/ray-cluster.sh worker FIRST_MACHINE
#   on the first machine:    examples/ray-cluster.sh encode /mnt/videos /mnt/latents
#   at the end, everywhere:  ray stop
set -euo pipefail

case ${1:-} in
head)
    ray start --head --port 6379
    ;;
worker)
    ray start --address "$2:6379"
    ;;
encode)
    wfvae encode "$2" -o "$3" --model "${MODEL:-wan-2.1}" --short-side 480 --batch auto \
        --engine ray --address auto
    ;;
*)
    echo "usage: $0 head | worker FIRST_MACHINE | encode VIDEOS LATENTS" >&2
    exit 2
    ;;
esac
