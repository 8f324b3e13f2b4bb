#!/usr/bin/env bash
# Cache latents for Lightricks' LTX-2 trainer (needs that trainer, and LTX-2's VAE):
#
#   examples/ltx2/encode.sh videos/ data/
#
# writes data/.precomputed/latents/. The trainer's own script then adds the text conditions under the
# same names, in data/.precomputed/conditions/; config.yaml names the folder. LTX-2 takes sides that
# are multiples of 32 and 1 + 8k frames.
set -euo pipefail

wfvae encode "$1" -o "$2" --format ltx --model ltx-2 --size 768x512 --fps 24 --frames 121
