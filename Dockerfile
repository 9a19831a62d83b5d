# One image for all of labelloop's services; the command says which one a container is:
#   ml-backend       gunicorn … "ml_backend.app:create_app()"   (the whole line is in docker-compose.yml)
#   api              gunicorn … "api.app:create_app()"
#   sync             python -m sync
#   worker-refresh   python -m retrain_worker refresh score
#   worker-features  python -m retrain_worker features
#   worker-train     python -m retrain_worker train
#   dashboard        gunicorn … "labelloop.web.dashboard:create_app()"
#   by hand          labelloop init | status | models | promote | rollback | …
# Label Studio and the S3 server are images of their own: their embedded environments stay out (.dockerignore).

# the uv of the lock, hash and all, as in the Makefile; a stage of its own, for only the program counts below: another
# tool in the lock does not build everything anew
FROM python:3.11-slim AS tools
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    awk '/^uv==/ {on=1} on {print} on && !/\\$/ {exit}' requirements.lock > uv.lock \
    && pip install --quiet --require-hashes --no-deps -r uv.lock \
    && install "$(command -v uv)" /build/uv


FROM python:3.11-slim AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY --from=tools /build/uv /usr/local/bin/uv
COPY requirements-runtime.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet --python /usr/local/bin/python3.11 /opt/labelloop \
    && uv pip sync --quiet --python /opt/labelloop/bin/python --require-hashes requirements-runtime.lock
# our own code is not built into a wheel: that would fetch a build backend that no lock pins
RUN printf '%s\n' '#!/opt/labelloop/bin/python' 'from cli.main import app' 'app()' > /opt/labelloop/bin/labelloop \
    && chmod 755 /opt/labelloop/bin/labelloop


FROM python:3.11-slim AS runtime
ENV PATH=/opt/labelloop/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/var/lib/labelloop/hub \
    LABELLOOP_CACHE_DIR=/var/lib/labelloop/cache \
    LABELLOOP_WEIGHTS=/var/lib/labelloop/weights
# a volume mounted on this folder takes over its owner
RUN groupadd --gid 10001 labelloop \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/lib/labelloop --shell /usr/sbin/nologin labelloop \
    && install -d -o labelloop -g labelloop /var/lib/labelloop/cache /var/lib/labelloop/hub /var/lib/labelloop/weights
COPY --from=builder /opt/labelloop /opt/labelloop
WORKDIR /app
# what changes seldom first
COPY configs ./configs
COPY labelloop ./labelloop
COPY ml_backend ./ml_backend
COPY sync ./sync
COPY retrain_worker ./retrain_worker
COPY operations ./operations
COPY embedded ./embedded
COPY api ./api
COPY cli ./cli
RUN python -m compileall -q .
USER 10001:10001
EXPOSE 9090
STOPSIGNAL SIGTERM
CMD ["labelloop", "--help"]
