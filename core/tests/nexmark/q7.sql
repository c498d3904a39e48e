-- The highest bids of each ten seconds.
WITH highest AS (
    SELECT window_start, window_end, max(price) AS price
    FROM TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10 seconds')
    GROUP BY window_start, window_end
)
SELECT bid.window_start AS window_start, auction, bidder, bid.price AS price, date_time
FROM TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10 seconds') AS bid
JOIN highest ON bid.window_start = highest.window_start AND bid.price = highest.price
