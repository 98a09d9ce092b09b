FROM python:3.11-slim

# checkpoints and compiled code are all that it writes
RUN useradd --create-home --uid 10001 thalweg \
    && install -d -o thalweg -g thalweg /var/lib/thalweg

WORKDIR /opt/thalweg
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY operators operators
COPY streams streams
RUN pip install --no-cache-dir .

USER thalweg
WORKDIR /home/thalweg
VOLUME /var/lib/thalweg
STOPSIGNAL SIGTERM
ENTRYPOINT ["thalweg"]
CMD ["--help"]
