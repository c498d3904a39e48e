-- Hot items: in each sliding window the auctions with the most bids.
WITH counted AS (
    SELECT window_start, auction, count(*) AS bids
    FROM HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY window_start, auction
), most AS (
    SELECT window_start, max(bids) AS bids FROM counted GROUP BY window_start
)
SELECT counted.window_start AS window_start, auction, counted.bids AS bids
FROM counted JOIN most ON counted.window_start = most.window_start AND counted.bids = most.bids
