# One image for the API, the workers and the migration; the compose file says which command runs.
#
#   docker build -t modelpress .
#
# CPU build of PyTorch: pass PyTorch's index of CPU wheels as PIP_EXTRA_INDEX_URL. The GPU workers' image is built with
# RUNTIME=onnxruntime-gpu and without that index.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_EXTRA_INDEX_URL=""
ARG RUNTIME=onnxruntime
ENV PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/modelpress
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Dependencies first: this layer is rebuilt only when they change.
RUN mkdir api worker compression db \
 && touch api/__init__.py worker/__init__.py compression/__init__.py db/__init__.py \
 && /opt/modelpress/bin/pip install -c constraints.txt . \
 && if [ "${RUNTIME}" != onnxruntime ]; then \
        /opt/modelpress/bin/pip uninstall --yes onnxruntime && /opt/modelpress/bin/pip install "${RUNTIME}"; \
    fi
COPY api api
COPY worker worker
COPY compression compression
COPY db db
RUN /opt/modelpress/bin/pip install --no-deps --force-reinstall .

FROM ${BASE}
LABEL org.opencontainers.image.title="Modelpress" \
      org.opencontainers.image.description="Compresses neural networks as asynchronous jobs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 modelpress \
 && install --directory --owner=modelpress /data
COPY --from=build /opt/modelpress /opt/modelpress
ENV PATH=/opt/modelpress/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MODELPRESS_DATA=/data
USER modelpress
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-m", "api", "ping"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "api", "http", "--host", "0.0.0.0", "--port", "8000"]
