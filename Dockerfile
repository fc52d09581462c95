# One image for both roles: `serve` is the gateway with the CAD viewer's pages, `worker voice` the reference worker with
# its speech programs.

FROM rust:1-bookworm AS build
WORKDIR /src
# Dependencies in a layer of their own: it is built again only when the lock file changes.
# Cargo wants every declared target to exist, so empty ones stand in for the sources.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/bench \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs tests/bench/gateway.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin causeway
COPY src src
# Parts of workers that the binary carries inside.
COPY deploy/workers deploy/workers
# The copies may be older than the stand-ins; without a new time cargo would take them for built.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin causeway

FROM debian:bookworm-slim
# pip trusts the system's authorities here, so that a company's own mirror works as it does for apt.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates espeak-ng flite python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/speech \
    && PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
       /opt/speech/bin/pip install --no-cache-dir --disable-pip-version-check 'pocketsphinx==5.*' \
    && groupadd --system --gid 10001 causeway \
    && useradd --system --uid 10001 --gid causeway --home-dir /var/lib/causeway --create-home causeway
# The pages are upstream's wheels, checked by their hashes; nothing else of them is needed.
COPY deploy/scripts/viewer-assets /usr/local/lib/causeway/viewer-assets
RUN PIP_CERT=/etc/ssl/certs/ca-certificates.crt PYTHON=/opt/speech/bin/python3 \
    /usr/local/lib/causeway/viewer-assets /usr/share/causeway/viewer
ENV GW_CAD_ASSETS=/usr/share/causeway/viewer
COPY --from=build /src/target/release/causeway /usr/local/bin/causeway
# The voice worker finds the Python that has the recogniser first in the path.
ENV PATH=/opt/speech/bin:$PATH
# a number, so that a cluster can see that it is not root
USER 10001:10001
WORKDIR /var/lib/causeway
EXPOSE 8080 3939 8000 8765 9876 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["causeway", "health"]
ENTRYPOINT ["causeway"]
CMD ["serve"]
