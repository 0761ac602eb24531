# The image of the gateway: Node, the bundle and nothing else. No shell, no package manager, not root.

# ── The bundle: JavaScript is the same on every machine, so it is made once, on the one that builds.
FROM --platform=$BUILDPLATFORM docker.io/library/node:26-trixie-slim AS bundle
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# Not their install scripts: what the bundle needs has none.
RUN npm ci --ignore-scripts
COPY . .
RUN node scripts/bundle.ts

# ── What is taken from Node's image, for the machine that runs it.
FROM docker.io/library/node:26-trixie-slim AS node
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
# Without symbols and debug information Node is a quarter smaller; stack traces of JavaScript need neither.
# The library's folder is named after the machine; the runtime's loader looks into /usr/lib on each of them.
RUN mkdir -p /out/usr/local/bin /out/usr/lib \
  && strip --strip-all -o /out/usr/local/bin/node /usr/local/bin/node \
  && cp --dereference "$(find /usr/lib /lib -name libatomic.so.1 | head -n 1)" /out/usr/lib/libatomic.so.1
# What V8 compiles for a start, so that the next need not: of one with everything but Redis, and of one that gets as far
# as Redis. V8 takes it on CPUs with the same features and Node for the same user and path; elsewhere it is passed over.
COPY --from=bundle /build/dist /app/dist
RUN install -d -o 65532 -g 65532 /out/app/cache && echo key >/tmp/keys
USER 65532:65532
ENV NODE_COMPILE_CACHE=/out/app/cache JWT_SECRET=only-to-start-with-and-not-in-the-image \
  HOST=127.0.0.1 PORT=0 API_PORT=0 ADMIN_PORT=0 DRAIN_SECONDS=0 LOG_LEVEL=silent
RUN timeout --preserve-status 5 env API_KEYS_FILE=/tmp/keys CHANNELS='{namespaces: {}}' \
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1 node /app/dist/gateway.js \
  && timeout --preserve-status 5 env REDIS_URL=redis://127.0.0.1:1 node /app/dist/gateway.js \
  && chmod -R a+rX /out/app/cache

FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="tidegate" \
  org.opencontainers.image.description="A Kubernetes-native WebSocket gateway." \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="$VERSION" \
  org.opencontainers.image.revision="$REVISION" \
  org.opencontainers.image.created="$CREATED" \
  org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"
COPY --from=node --chown=0:0 /out/ /
COPY --from=bundle /build/LICENSE /app/LICENSE
# The demo page (DEMO=true) is served from these.
COPY --from=bundle /build/demo /app/demo
COPY --from=bundle /build/src/client /app/src/client
COPY --from=bundle /build/src/protocol /app/src/protocol
COPY --from=bundle /build/dist /app/dist
# By number, so that Kubernetes can check `runAsNonRoot`. Nothing is written, so the root may be read-only.
USER 65532:65532
ENV NODE_COMPILE_CACHE=/app/cache
EXPOSE 8080 8081 9090
ENTRYPOINT ["/usr/local/bin/node", "/app/dist/gateway.js"]
