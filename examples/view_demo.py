"""A materialized view: a query whose answer is a table that is always fresh, also after the program has ended.

usage: view_demo.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from velaria import DataflowSession

TABLES = """
CREATE TABLE customers (id BIGINT, name VARCHAR);
INSERT INTO customers VALUES (1, 'Ada'), (2, 'Blaise'), (3, 'Carl');

CREATE TABLE orders (customer BIGINT, price DECIMAL(9, 2));
INSERT INTO orders VALUES (1, 12.50), (2, 30.00), (1, 4.20)
"""

VIEW = """
CREATE MATERIALIZED VIEW spending AS
    SELECT name, count(*) AS orders, sum(price) AS spent
    FROM orders JOIN customers ON orders.customer = customers.id
    GROUP BY name
"""

READ = "SELECT * FROM spending ORDER BY spent DESC"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "shop.duckdb")
        with DataflowSession(file) as session:
            session.sql(TABLES)
            print(VIEW)
            session.sql(VIEW)
            session.sql(READ).show()

            print("\nan order comes, and a customer gets a second name: only what is touched is computed")
            session.sql("INSERT INTO orders VALUES (3, 75.90)")
            session.sql("INSERT INTO customers VALUES (2, 'Pascal')")
            session.sql(READ).show()

        print("\nanother session opens the file: the view is there, and it goes on")
        with DataflowSession(file) as session:
            session.sql("INSERT INTO orders VALUES (1, 100.00)")
            session.sql(READ).show()
            same = "SELECT name, count(*) AS orders, sum(price) AS spent FROM orders JOIN customers "
            same += "ON orders.customer = customers.id GROUP BY name ORDER BY spent DESC"
            fresh = session.sql(same).to_rows() == session.sql(READ).to_rows()
            print(f"the query itself, asked now, says the same: {'yes' if fresh else 'NO'}")


if __name__ == "__main__":
    main()
