# syntax=docker/dockerfile:1
# wfvae for a CPU, or for CUDA:
#
#   docker build -t wfvae .
#   docker build -t wfvae:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
#   docker run --rm -v "$PWD:/data" wfvae roundtrip in.mp4 -o out.mp4
#   docker run --rm --gpus all -v "$PWD:/data" wfvae:cuda encode videos/ -o latents/ --model wan-2.1
#
# PyTorch's wheels bring the CUDA libraries along: only the driver comes from the host.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Of pip, such as [diffusers,ray,webdataset]; a CUDA image with --engine ray needs the extra ray.
ARG EXTRAS=[diffusers,plot,webdataset]

# The layer of PyTorch stays in the cache while the sources change.
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.6,<2.14"
COPY pyproject.toml README.md LICENSE /src/
COPY wfvae_cli /src/wfvae_cli
COPY weights/wfvae-tiny /src/weights/wfvae-tiny
RUN pip install --no-cache-dir "/src$EXTRAS"

# Models are kept in a volume: docker run -v wfvae-models:/models ...
ENV HF_HOME=/models
RUN useradd --create-home wfvae && mkdir /models /data && chown wfvae /models /data
USER wfvae
WORKDIR /data
ENTRYPOINT ["wfvae"]
CMD ["--help"]
