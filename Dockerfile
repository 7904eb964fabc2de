# syntax=docker/dockerfile:1
# The gateway as a container: `docker build -t larder .`; docs/INSTALL.md says how it is run.
#
# Both images can be named by digest, for a build that is the same next year:
#   docker build --build-arg BUILD_IMAGE=rust:1.95-bookworm@sha256:... --build-arg RUNTIME_IMAGE=...@sha256:... .

# The compiler that Cargo.toml asks for (rust-version), on the Debian that the runtime image is made of: the binary
# needs the C library it was linked with, or a younger one.
ARG BUILD_IMAGE=rust:1.95-bookworm
# Linked in dynamically are libc, libm, libmvec, libgcc_s and libstdc++ (of the index for semantic matching): what this
# image has, with the certificates of public authorities, and nothing else. No shell, no package manager.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
# Paths of this machine stay out of the binary, and times with it.
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    RUSTFLAGS="--remap-path-prefix=/src=larder --remap-path-prefix=/usr/local/cargo=cargo"
# `dist` is what is shipped: link-time optimisation and no symbols, which makes it far smaller than `release`. The
# profile that `make dist` adds is left out: it is measured under load, so no two builds would be the same. Downloads
# and what has been compiled stay in caches, by architecture, for only what has changed to be compiled again.
ARG TARGETARCH
RUN --mount=type=cache,id=larder-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=larder-target-${TARGETARCH},target=/src/target,sharing=locked \
    cargo build --locked --profile dist --bin larder \
    && install -D target/dist/larder /image/usr/bin/larder \
    && install -D --mode=0644 LICENSE /image/usr/share/doc/larder/LICENSE \
    && install --directory --mode=0700 --owner=65532 --group=65532 /image/var/lib/larder

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="larder" \
      org.opencontainers.image.description="An HTTP caching gateway for LLM and any other HTTP APIs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=build /image /
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# Clients have to get in from outside the container. Operators come in through it (`docker exec`) until a token is
# configured and listen.admin is set to another address.
ENV LARDER_DATA_DIR=/var/lib/larder \
    LARDER_LISTEN__DATA=0.0.0.0:8080
VOLUME /var/lib/larder
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/usr/bin/larder", "health"]
ENTRYPOINT ["/usr/bin/larder"]
CMD ["serve"]
