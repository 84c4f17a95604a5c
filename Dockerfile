# A small image that runs as nobody in particular, on a root that is read-only: one volume for the state, the
# configuration mounted read-only. compose.yaml says the same as a file.
#
#   docker build -t syncsvc .
#   docker run --read-only -v syncsvc-state:/var/lib/syncsvc -v ./organizations:/etc/syncsvc:ro --env-file secrets.env syncsvc
#
# /etc/syncsvc is a directory: one file an organization, and their [service] table in service.toml. To run a single
# file that has the table in it: -e SYNCSVC_CONFIG=/etc/syncsvc/acme.toml
# With another user (--user 12345:0, as some platforms give): a new volume is open to group 0; one that has a state
# belongs to the user that made it.
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
    && install -d -o syncsvc -g root -m 0770 /var/lib/syncsvc \
    && install -d /etc/syncsvc
ENV PATH=/opt/syncsvc/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SYNCSVC_CONFIG=/etc/syncsvc
USER 10001:0
WORKDIR /var/lib/syncsvc
VOLUME /var/lib/syncsvc
# Asks /readyz where service.listen says; a tenth of what starting a command costs.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "syncsvc.probe"]
# The exec form: SIGTERM reaches the process itself, which then stops cleanly within 30 s.
ENTRYPOINT ["syncsvc"]
CMD ["run"]
