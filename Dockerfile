# plugin-state as a container beside a plugin's worker.
#
#   docker build -t plugin-state .
#
# In a Kubernetes pod, or with `docker run --network container:WORKER`, worker and sidecar share a
# loopback interface: the default address, 127.0.0.1:50051, is what the worker calls, and nobody else
# can. That's why it is the default here too. Otherwise a container's loopback is its own, so
# either share a unix socket through a volume (the worker needs uid 1000, which alone may open it)
#
#   docker run -v plugin-state-run:/run/plugin-state \
#     -e PLUGIN_STATE_LISTEN=unix:/run/plugin-state/demo.sock \
#     -e PLUGIN_STATE_ADDRESS=unix:/run/plugin-state/demo.sock plugin-state
#
# or listen on all addresses with TLS and a token (docs/security.md). With neither, whoever reaches the port reads
# and writes the plugin's state, so publish it on the host's loopback only
#
#   docker run -p 127.0.0.1:50051:50051 -e PLUGIN_STATE_LISTEN=0.0.0.0:50051 \
#     -e PLUGIN_STATE_INSECURE=true plugin-state
#
# Without DATABASE_URL it runs a PostgreSQL of its own, in the volume /var/lib/plugin-state; with
# -e DATABASE_URL=… -e PLUGIN_STATE_PLUGIN=acme.notes it keeps nothing here.

FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/clean-dist.js scripts/
COPY src src
RUN npm run build && find dist \( -name '*.map' -o -name '*.d.ts' \) -delete

FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
LABEL org.opencontainers.image.title="plugin-state" \
      org.opencontainers.image.description="gRPC sidecar that keeps a plugin's scoped JSON state in PostgreSQL" \
      org.opencontainers.image.licenses="MIT"
# The embedded PostgreSQL refuses to run as root, and wants its uid to be an account's: 1000 is the
# image's `node`. A new volume takes owner and mode from these directories.
RUN install -d -o 1000 -g 1000 -m 0700 /var/lib/plugin-state /run/plugin-state
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY migrations migrations
COPY package.json LICENSE ./
# The default data directory is $XDG_STATE_HOME/plugin-state. (PLUGIN_STATE_DATA_DIR would contradict
# a DATABASE_URL given to `docker run`.)
# Without a bound, Node.js 24 lets young objects take 100 MB more under load, which makes calls
# a few percent quicker at most. Whoever sets NODE_OPTIONS should repeat it.
ENV NODE_ENV=production \
    NODE_OPTIONS=--max-semi-space-size=8 \
    XDG_STATE_HOME=/var/lib
VOLUME /var/lib/plugin-state
EXPOSE 50051
USER 1000:1000
# It drains within 8 seconds (PLUGIN_STATE_DRAIN_TIMEOUT_MS) of this signal: inside Docker's 10.
STOPSIGNAL SIGTERM
# No shell in between. PLUGIN_STATE_ADDRESS says where, if not at the default address.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["node", "/app/dist/main.js", "health", "--timeout-ms", "2000"]
# Node.js itself is the container's first process, so signals reach it.
ENTRYPOINT ["node", "/app/dist/main.js"]
CMD ["serve"]
