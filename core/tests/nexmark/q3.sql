-- Who sells in some states: a join of auctions with people.
SELECT name, city, state, auction.id AS id
FROM auction JOIN person ON auction.seller = person.id
WHERE category = 10 AND state IN ('OR', 'ID', 'CA')
