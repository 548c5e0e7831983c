# One image for the API, the workers and the migration; docker-compose.yml says which command runs.
#
#   docker build --tag modelpress .
#   docker build --tag modelpress:gpu --build-arg RUNTIME=onnxruntime-gpu --build-arg PIP_EXTRA_INDEX_URL= .
#
# BASE has Python 3.11 or newer and apt. PIP_EXTRA_INDEX_URL is where PyTorch without CUDA comes from; an empty one
# takes PyTorch from the package index, with CUDA on Linux.

ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS dependencies
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG RUNTIME=onnxruntime
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /opt/modelpress
COPY pyproject.toml constraints.txt ./
# Only these two files decide what is installed here, so that a change of code does not install PyTorch again.
RUN if [ -z "${PIP_EXTRA_INDEX_URL}" ]; then unset PIP_EXTRA_INDEX_URL; fi \
 && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > requirements.txt \
 && sed -i "s/^onnxruntime\([>=]\)/${RUNTIME}\1/" requirements.txt constraints.txt \
 && /opt/modelpress/bin/pip install -c constraints.txt -r requirements.txt


FROM dependencies AS code
COPY README.md LICENSE ./
COPY api api
COPY worker worker
COPY compression compression
COPY db db
# Into an empty root, so that the image gets a small layer of code on top of the large one of dependencies.
RUN /opt/modelpress/bin/pip install --no-deps --root /added .


FROM ${BASE}
LABEL org.opencontainers.image.title="Modelpress" \
      org.opencontainers.image.description="Compresses neural networks as asynchronous jobs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 modelpress \
 && install --directory --owner=modelpress --group=modelpress /data /machine
COPY --from=dependencies /opt/modelpress /opt/modelpress
COPY --from=code /added/opt/modelpress /opt/modelpress
ENV PATH=/opt/modelpress/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 \
    MODELPRESS_DATA=/data
USER modelpress
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "api", "ping"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "api", "http", "--host", "0.0.0.0", "--port", "8000"]
