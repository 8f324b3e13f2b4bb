#!/usr/bin/env bash
# Cache latents for training Wan 2.1 with musubi-tuner (needs that trainer, and Wan's VAE):
#
#   examples/musubi-tuner/encode.sh videos/ cache/
#   cd musubi-tuner
#   python src/musubi_tuner/wan_cache_text_encoder_outputs.py --dataset_config dataset.toml --t5 T5.pth
#   python src/musubi_tuner/wan_train_network.py --dataset_config dataset.toml ...
#
# Leave out wan_cache_latents.py, or give it --keep_cache: it deletes cache files of its
# architecture that it does not expect.
set -euo pipefail

wfvae encode "$1" -o "$2" --format musubi --model wan-2.1 --size 832x480 --fps 16 --frames 81
