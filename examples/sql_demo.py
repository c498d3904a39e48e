"""SQL from the first table to the last query: a shop's orders, made, filled, joined and grouped.

usage: sql_demo.py [ROWS]       rows of each result to show, 10 unless told otherwise
"""

from __future__ import annotations

import argparse

from velaria import DataflowSession

TABLES = """
CREATE TABLE customers (id BIGINT, name VARCHAR, city VARCHAR);
INSERT INTO customers VALUES (1, 'Ada', 'London'), (2, 'Blaise', 'Paris'), (3, 'Carl', 'Berlin'), (4, 'Grace', NULL);

CREATE TABLE orders (id BIGINT, customer BIGINT, item VARCHAR, price DECIMAL(9, 2), ordered DATE);
INSERT INTO orders VALUES
    (101, 1, 'gear', 12.50, DATE '2024-03-01'),
    (102, 1, 'lever', 4.20, DATE '2024-03-02'),
    (103, 2, 'wheel', 30.00, DATE '2024-03-02'),
    (104, 3, 'prism', 75.90, DATE '2024-03-05'),
    (105, 2, 'gear', 12.50, DATE '2024-03-09'),
    (106, 1, 'wheel', 30.00, DATE '2024-03-09')
"""

QUERIES = {
    "groups that HAVING lets through": """
        SELECT item, count(*) AS orders, sum(price) AS income
        FROM orders
        GROUP BY item
        HAVING count(*) > 1
        ORDER BY income DESC
    """,
    "a join: customers without an order stay": """
        SELECT name, item, price
        FROM customers LEFT JOIN orders ON orders.customer = customers.id
        ORDER BY name, price
    """,
    "a join and its groups": """
        SELECT name, coalesce(city, 'unknown') AS city, count(orders.id) AS orders, sum(price) AS spent
        FROM customers LEFT JOIN orders ON orders.customer = customers.id
        GROUP BY ALL
        ORDER BY spent DESC NULLS LAST
    """,
}

SUMMARY = """
CREATE TABLE spending (name VARCHAR, spent DECIMAL(18, 2));
INSERT INTO spending
    SELECT name, sum(price)
    FROM customers JOIN orders ON orders.customer = customers.id
    GROUP BY name;
INSERT INTO spending (name) SELECT name FROM customers ANTI JOIN orders ON orders.customer = customers.id
"""

RANKED = """
    SELECT rank() OVER (ORDER BY spent DESC NULLS LAST) AS place, name, spent
    FROM spending
    ORDER BY place, name
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="SQL over tables that SQL made.")
    parser.add_argument("rows", type=int, nargs="?", default=10, help="rows of each result to show")
    rows = parser.parse_args(arguments).rows

    with DataflowSession() as session:
        session.sql(TABLES)
        print("tables:", ", ".join(session.tables()))
        for title, query in QUERIES.items():
            print(f"\n{title}")
            session.sql(query).show(rows)

        session.sql(SUMMARY)
        print("\na table filled by INSERT ... SELECT, and a query over it")
        session.sql(RANKED).show(rows)

        # Values from outside are parameters, never pasted into the text.
        wanted = session.sql("SELECT name FROM spending WHERE spent > $least ORDER BY name", {"least": 40})
        print("\nspent more than 40:", ", ".join(row["name"] for row in wanted.to_rows()))


if __name__ == "__main__":
    main()
