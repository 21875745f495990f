# docker build -t minia .                       for a machine with a CUDA GPU: --build-arg EXTRA=gpu
# docker run --rm -v "$PWD:/data" minia mine images=folder images.dir=images
FROM python:3.12-slim

ARG EXTRA=cpu
ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/minia
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY minia minia
# The versions are pyproject.toml's.
# hadolint ignore=DL3013
RUN pip install ".[${EXTRA}]" && useradd --uid 1000 --create-home minia

# Runs and the store of artifacts land in the mounted folder; HOME must be writable for any user id (docker run --user).
ENV HOME=/tmp
USER 1000
WORKDIR /data
ENTRYPOINT ["minia"]
CMD ["--help"]
