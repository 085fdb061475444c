# The worker image: what fetches, and what stages out beside the tool. Python, obstore and s3runner, and nothing
# that they do not need: no compiler, no setuid program, no root.
#
# `make image` builds it. By hand, with Docker or podman:
#   docker/collect_wheels 3.13 && docker build --file docker/worker.Dockerfile --tag s3runner-worker:VERSION docker
#
# Every package comes from docker/wheels: no step here needs an index or a network.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS unpacked
COPY wheels/ /wheels/
# A wheel without scripts of its own is a zip of what Python imports. Sources in an image never change, so their
# compiled form is never compared with them: that is a system call less for each import of each pod.
RUN for wheel in /wheels/*.whl; do python3 -m zipfile -e "$wheel" /opt/s3runner || exit; done \
    && rm -rf /opt/s3runner/*.data \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/s3runner \
    && chmod 0755 /opt/s3runner/s3runner/_job_scripts/execute_job.py

FROM ${BASE}
ARG VERSION=0
LABEL org.opencontainers.image.title="s3runner-worker" \
      org.opencontainers.image.description="Fetches a job's inputs from S3, and stages its results out" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The standard library too: some bases come without its compiled form, and no pod can write it.
RUN python3 -m compileall -q -x site-packages "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && ln -s /opt/s3runner/s3runner/_job_scripts/execute_job.py /usr/local/bin/execute_job.py \
    && mkdir /home/s3runner
COPY --from=unpacked /opt/s3runner /opt/s3runner
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/s3runner \
    LANG=C.UTF-8 \
    TZ=UTC \
    PYTHONPATH=/opt/s3runner \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUTF8=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 1000:1000
ENTRYPOINT ["execute_job.py"]
