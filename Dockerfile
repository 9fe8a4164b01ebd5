# mammojax in a container; docs/cluster.md says how to run it.
#
#   docker build -t mammojax .                                   CPU
#   docker build --build-arg DEVICE=cuda -t mammojax:cuda .      NVIDIA GPUs; the driver is the host's
#   docker build --build-arg EXTRAS=weights,dicom-out .          further extras of pyproject.toml
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm

# cpu or cuda: CUDA comes with jax's own packages, so that both begin with the same image.
ARG DEVICE=cpu
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/mammojax
COPY pyproject.toml README.md LICENSE ./
COPY mammojax mammojax
COPY configs configs
# hadolint ignore=DL3013  # "." is this project; its dependencies are in pyproject.toml
RUN case "$DEVICE" in cpu) chosen="$EXTRAS" ;; cuda) chosen="cuda${EXTRAS:+,$EXTRAS}" ;; \
      *) echo "DEVICE is $DEVICE; write cpu or cuda" >&2; exit 2 ;; esac \
    && pip install ".${chosen:+[$chosen]}"

# No root: what it writes into a mounted folder belongs to a user; `docker run --user` gives another one.
RUN useradd --create-home --uid 1000 mammojax
USER 1000
WORKDIR /work
ENTRYPOINT ["mammojax"]
CMD ["--help"]
