# A small image that runs as nobody in particular: one volume for the state, the configuration mounted read-only.
#
#   docker build -t syncsvc .
#   docker run -v syncsvc-state:/var/lib/syncsvc -v ./organizations:/etc/syncsvc:ro --env-file secrets.env syncsvc
#
# /etc/syncsvc is a directory: one file an organization, and their [service] table in service.toml. To run a single
# file that has the table in it: -e SYNCSVC_CONFIG=/etc/syncsvc/acme.toml
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/syncsvc \
    && /opt/syncsvc/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r requirements.lock
COPY pyproject.toml README.md ./
COPY syncsvc ./syncsvc
COPY connectors ./connectors
RUN /opt/syncsvc/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps \
        --no-build-isolation . \
    && /opt/syncsvc/bin/python -m pip uninstall --yes hatchling editables \
    && /opt/syncsvc/bin/python -m compileall -q /opt/syncsvc/lib

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/syncsvc /opt/syncsvc
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin syncsvc \
    && install -d -o syncsvc -g syncsvc -m 0700 /var/lib/syncsvc \
    && install -d /etc/syncsvc
ENV PATH=/opt/syncsvc/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SYNCSVC_CONFIG=/etc/syncsvc
USER 10001:10001
WORKDIR /var/lib/syncsvc
VOLUME /var/lib/syncsvc
# The default of service.listen is loopback, which is this container: enough for the check below.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/readyz', timeout=4)"]
# The exec form: SIGTERM reaches the process itself, which then stops cleanly within 30 s.
ENTRYPOINT ["syncsvc"]
CMD ["run"]
