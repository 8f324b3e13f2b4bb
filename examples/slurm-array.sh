#!/usr/bin/env bash
# Encode a dataset with a Slurm array: sbatch examples/slurm-array.sh /data/videos /data/latents
# Each task takes a share of its own; submit it again to do what is missing.
#SBATCH --job-name=wfvae
#SBATCH --array=0-63
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

videos=$1
latents=$2
model=${MODEL:-wan-2.1}

# Nodes without a network: fetch the model once on a login node, see docs/guides/many-machines.md.
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}

# exec, so that Slurm's signal reaches it: it leaves no half-written file behind.
exec wfvae encode "$videos" -o "$latents" --model "$model" --short-side 480 --batch auto \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --readers 6 --max-failures 1000
