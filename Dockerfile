# srgan on CPUs:  docker build -t srgan .
#                 docker run --rm --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#                     -v "$PWD/photos:/in:ro" -v "$PWD/large:/out" srgan upscale /in -o /out
# docs/DOCKER.md says more; scripts/docker-steps runs these steps without Docker.

FROM python:3.12-slim AS build
# PyTorch's edition for CPUs. Empty: that of the package index, which may bring CUDA and then is several times as large.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# A layer of its own: it is by far the largest, and changes least.
RUN python -m venv /venv && /venv/bin/pip install torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY . /src
RUN /venv/bin/pip install "/src[serve,watch,heic]"

FROM python:3.12-slim
COPY --from=build /venv /venv
# Whoever it runs as, there is a place to write that is gone afterwards; the file system may be read-only.
ENV PATH=/venv/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8780
ENTRYPOINT ["srgan"]
CMD ["--help"]
