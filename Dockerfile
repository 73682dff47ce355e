# syntax=docker/dockerfile:1
# The model service: docker build -t inkdigits-model .

FROM python:3.12-slim AS builder
WORKDIR /build
RUN python -m venv /opt/inkdigits
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir dist . \
    && /opt/inkdigits/bin/pip install dist/*.whl \
    # A service installs nothing; pip would only be one more thing to keep patched.
    && /opt/inkdigits/bin/pip uninstall --yes pip

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Inkdigits model service" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/inkdigits/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    INKDIGITS_PAGE=off
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin inkdigits
COPY --from=builder /opt/inkdigits /opt/inkdigits
USER 10001:10001
WORKDIR /tmp
EXPOSE 5000
STOPSIGNAL SIGTERM
# A 503 is an exception to urlopen, and so an exit code other than 0.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; e = os.environ.get; r.urlopen(f\"http{'s' * bool(e('INKDIGITS_TLS_CERT'))}://127.0.0.1:{e('PORT') or 5000}/health/ready\", timeout=4, context=ssl._create_unverified_context())"]
CMD ["inkdigits", "serve", "--host", "0.0.0.0"]
