-- The completeness of each series: candles expected, present, missing, and missing with a reason.
-- :market = spot   spot, usdt_futures or coin_futures
-- :since = 1970-01-01   first UTC day, or an age: 7d
-- :until = 9999-12-31   last UTC day
SELECT
    market,
    symbol,
    "interval",
    min("date") AS first,
    max("date") AS last,
    sum(expected)::BIGINT AS expected,
    sum(present)::BIGINT AS present,
    sum(missing)::BIGINT AS missing,
    sum(explained)::BIGINT AS explained,
    round(100 * (1 - sum(missing) / sum(expected)), 3) AS percent
FROM coverage
WHERE market = $market AND "date" BETWEEN $since::DATE AND $until::DATE
GROUP BY market, symbol, "interval"
ORDER BY missing DESC, symbol, "interval"
