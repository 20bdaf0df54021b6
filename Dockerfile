# One image for nodes, load and the runner. Not an operating system's packages, but pinned wheels only.
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /source
COPY requirements/build.txt requirements/containers.txt requirements/
RUN python -m venv /tools && /tools/bin/pip install --quiet --require-hashes -r requirements/build.txt \
 && python -m venv /opt/capbench \
 && /opt/capbench/bin/pip install --quiet --require-hashes -r requirements/containers.txt
COPY pyproject.toml README.md ./
COPY nodes nodes
COPY bench bench
COPY reports reports
COPY chaos chaos
RUN /tools/bin/hatchling build -t wheel -d /wheel \
 && /opt/capbench/bin/pip install --quiet --no-deps /wheel/*.whl \
 && ln -s "$(/opt/capbench/bin/python -I -c 'from bench.paths import LOCUSTFILE; print(LOCUSTFILE)')" \
      /opt/capbench/locustfile.py \
 && /opt/capbench/bin/pip uninstall --quiet --yes pip

FROM python:3.12-slim
COPY --from=build /opt/capbench /opt/capbench
RUN printf 'capbench:x:1000:1000::/results:/usr/sbin/nologin\n' >> /etc/passwd \
 && printf 'capbench:x:1000:\n' >> /etc/group \
 && mkdir -p /data /clients /runner /results && chown 1000:1000 /data /clients /runner /results
# With a safe path, nothing of the working folder is imported, which here is somebody's folder of results.
ENV PATH=/opt/capbench/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
USER 1000:1000
WORKDIR /results
CMD ["python", "-m", "nodes.container"]
