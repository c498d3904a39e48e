-- The mean closing price of a category: the highest bid on each auction while it was open, and the mean of those.
SELECT category, avg(final) AS price
FROM (
    SELECT auction.id, category, max(price) AS final
    FROM auction JOIN bid ON auction.id = bid.auction
    WHERE bid.date_time BETWEEN auction.date_time AND expires
    GROUP BY auction.id, category
)
GROUP BY category
