# The inference service. It holds no secret key, needs no PyTorch, and runs as a user of its own.

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY heinfer heinfer
COPY server server
COPY client client
COPY cli cli
COPY native native
RUN apt-get update && apt-get install --yes --no-install-recommends g++
# What is fetched is what requirements/*.lock have the SHA-256 of; what builds stays here.
RUN python -m venv /opt/heinfer-build
RUN /opt/heinfer-build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock
RUN /opt/heinfer-build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /opt/heinfer-build/wheels . ./native
RUN python -m venv /opt/heinfer
RUN /opt/heinfer/bin/pip install --no-cache-dir --require-hashes -r requirements/server.lock
RUN /opt/heinfer/bin/pip install --no-deps --no-index -f /opt/heinfer-build/wheels heinfer heinfer-native

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin heinfer
COPY --from=build /opt/heinfer /opt/heinfer
# For a volume with clients' evaluation keys (HEINFER_SERVER_KEY_FOLDER); without one they are kept in memory.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/heinfer
ENV PATH=/opt/heinfer/bin:$PATH
ENV PYTHONDONTWRITEBYTECODE=1
ENV HEINFER_SERVER_HOST=0.0.0.0
ENV HEINFER_SERVER_PORT=8000
# Made by `heinfer tenant add NAME` in the same volume; without it the server does not start.
ENV HEINFER_SERVER_TENANTS=/var/lib/heinfer/tenants.json
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['HEINFER_SERVER_PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["heinfer", "serve"]
CMD ["mnist-ffconv"]
