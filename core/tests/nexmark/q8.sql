-- New users: people who opened an auction in the ten seconds in which they joined.
SELECT person.id AS id, name, person.window_start AS window_start, count(*) AS auctions
FROM TUMBLE(TABLE person, DESCRIPTOR(date_time), INTERVAL '10 seconds') AS person
JOIN TUMBLE(TABLE auction, DESCRIPTOR(date_time), INTERVAL '10 seconds') AS auction
    ON person.id = auction.seller AND person.window_start = auction.window_start
GROUP BY person.id, name, person.window_start
