# Adtally on any system with a container engine:
#   docker build -t adtally . && docker run --rm -p 127.0.0.1:8480:8480 -v adtally:/data adtally
# Outside the container's loopback a keys file is needed: see `adtally key create` and docs/COMMANDS.md.
FROM debian:12 AS build
WORKDIR /src
COPY deploy/ deploy/
RUN deploy/setup build
COPY . .
RUN meson setup build --prefix=/usr/local --buildtype=release -Db_lto=true && ninja -C build install

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates libcurl4 libevent-core-2.1-7 libinih1 librocksdb7.8 \
        libsimdjson14 libssl3 libyajl2 libzstd1 tzdata \
    && rm -rf /var/lib/apt/lists/* && useradd --system --home /data adtally && install -d -o adtally /data
COPY --from=build /usr/local/bin/adtally /usr/local/bin/
COPY --from=build /usr/local/libexec/adtally /usr/local/libexec/adtally
USER adtally
VOLUME /data
EXPOSE 8480
ENTRYPOINT ["adtally"]
CMD ["up", "--data", "/data", "--listen", "0.0.0.0:8480", "--keys", "/data/keys"]
