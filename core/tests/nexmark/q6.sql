-- The mean closing price of the last ten auctions of each seller.
WITH final AS (
    SELECT auction.id AS id, seller, expires, max(price) AS price
    FROM auction JOIN bid ON auction.id = bid.auction
    WHERE bid.date_time BETWEEN auction.date_time AND expires
    GROUP BY auction.id, seller, expires
)
SELECT seller, id, avg(price) OVER (PARTITION BY seller ORDER BY expires, id ROWS 9 PRECEDING) AS price
FROM final
