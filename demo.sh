#!/usr/bin/env bash
# A local exchange at 60 times speed, 20 seconds of recording, a compaction, a query.
set -euo pipefail

export no_proxy=127.0.0.1 # the exchange here is local
lake=demo-data
rm -rf "$lake"
mkdir "$lake"

lakewriter sandbox --port 0 --speed 60 >"$lake/.url" 2>"$lake/.sandbox.log" &
sandbox=$!
trap 'kill "$sandbox" 2>/dev/null || true; wait "$sandbox" 2>/dev/null || true; rm -f "$lake/.url" "$lake/.sandbox.log"' EXIT
for _ in $(seq 300); do
    [ -s "$lake/.url" ] && break
    kill -0 "$sandbox" 2>/dev/null || { cat "$lake/.sandbox.log" >&2; exit 1; }
    sleep 0.1
done
url=$(head -n 1 "$lake/.url")

say() {
    printf '\n$ lakewriter'
    for word in "$@"; do case $word in *\ *) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac; done
    printf '\n'
    lakewriter "$@"
}

echo "A sandbox speaks Binance's protocol at $url, an hour in a minute."
say record --exchange "$url" --lake "$lake" --duration 20s --flush-every 5s \
    spot:BTCUSDT,BNBUSDT:1m usdt_futures:BTCUSDT,ETHUSDT:1m coin_futures:BTCUSD_PERP,ETHUSD_PERP:3m
say compact --lake "$lake"
say query --lake "$lake" "SELECT market, symbol, interval, count(*) AS candles, min(low) AS low, max(high) AS high FROM candles GROUP BY ALL ORDER BY ALL"
echo
echo "The lake is in $lake/: any tool that reads Hive-partitioned Parquet reads it."
