# syntax=docker/dockerfile:1
# The web service: docker build -f deploy/docker/web.Dockerfile -t inkdigits-web .

FROM python:3.12-slim AS builder
WORKDIR /build
RUN python -m venv /opt/inkdigits
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir dist . \
    && /opt/inkdigits/bin/pip install "$(ls dist/*.whl)[export,postgres,redis]" \
    # A service installs nothing; pip would only be one more thing to keep patched.
    && /opt/inkdigits/bin/pip uninstall --yes pip

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Inkdigits web service" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/inkdigits/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    INKDIGITS_DATA_DIR=/data
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin inkdigits \
    # A new volume takes the owner of the folder that it is mounted on.
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=builder /opt/inkdigits /opt/inkdigits
USER 10001:10001
WORKDIR /tmp
VOLUME /data
EXPOSE 5000
STOPSIGNAL SIGTERM
# Alive, and not ready: the page says by itself that the model is away.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; e = os.environ.get; r.urlopen(f\"http{'s' * bool(e('INKDIGITS_TLS_CERT'))}://127.0.0.1:{e('PORT') or 5000}/health/live\", timeout=4, context=ssl._create_unverified_context())"]
CMD ["inkdigits", "serve", "--host", "0.0.0.0"]
