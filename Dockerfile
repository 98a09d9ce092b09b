# The version that the tests run with. No digest is written here, since none could be looked up where this was written;
# pin one as you build: docker build --build-arg PYTHON_IMAGE=python:3.11.7-slim-bookworm@sha256:… .
ARG PYTHON_IMAGE=python:3.11.7-slim-bookworm
FROM ${PYTHON_IMAGE}

# checkpoints are all that it writes, and temporary files
RUN useradd --create-home --uid 10001 thalweg \
    && install -d -m 0700 -o thalweg -g thalweg /var/lib/thalweg /var/cache/thalweg

WORKDIR /opt/thalweg
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY operators operators
COPY streams streams
RUN pip install --no-cache-dir --no-deps .

USER thalweg
WORKDIR /home/thalweg
ENV THALWEG_CACHE=/var/cache/thalweg PYTHONDONTWRITEBYTECODE=1
# Compiled once, here: a container is ready at once on processors like the one that builds the image.
RUN thalweg warm-up
VOLUME /var/lib/thalweg
STOPSIGNAL SIGTERM
ENTRYPOINT ["thalweg"]
CMD ["--help"]
