# The image of `robo backend`, `robo validate` and every other verb: the program, its pipelines and manifests, nothing that only
# builds need. See docs/deployment.md. Environment servers have an image of their own: `robo build-eval-env`.
#
#   docker build -t robo-subnet/backend:latest .
#
# BUILDER needs Rust 1.94 or newer, a C compiler, and a libc no newer than that of BASE.
ARG BUILDER=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin robo && strip target/release/robo

FROM ${BASE}
# What some operators need beside: `--build-arg PACKAGES=openssh-client` for Docker hosts behind ssh://.
ARG PACKAGES=""
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates ${PACKAGES} \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --home-dir /var/lib/robo --create-home --shell /usr/sbin/nologin robo
COPY --from=build /src/target/release/robo /usr/local/bin/robo
COPY deploy/image/entrypoint /usr/local/bin/robo-entrypoint
COPY pipelines /opt/robo/pipelines
COPY environments /opt/robo/environments
COPY eval-env /opt/robo/eval-env
# Where `robo` looks for pipelines; what is mounted over it belongs to the operator.
WORKDIR /opt/robo
ENV ROBO_DATA_DIR=/var/lib/robo ROBO_BACKEND_HOST=0.0.0.0 ROBO_BACKEND_PORT=8000
# The entry point starts as root to join the group of a mounted Docker socket. robo itself never runs as root here.
EXPOSE 8000
# The base has no HTTP client but bash.
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${ROBO_BACKEND_PORT:-8000} && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -t 6 status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["robo-entrypoint"]
CMD ["backend"]
