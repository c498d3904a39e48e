"""Files that keep arriving, by SQL alone: a folder of CSV files, a query over it, a CSV file that the query writes.

usage: stream_sql_demo.py

Each run of the query takes the files that are new, and goes on where the one before stopped. An hour comes out once a
later order says that it is over; an order for an hour that is out is late, and counted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from velaria import DataflowSession, Trigger

ORDERS = (
    """ordered,customer,price
2024-03-01 09:05:00,Ada,12.50
2024-03-01 09:40:00,Carl,75.90
2024-03-01 10:05:00,Ada,4.20
""",
    """ordered,customer,price
2024-03-01 10:10:00,Grace,30.00
2024-03-01 09:58:00,Blaise,3.00
2024-03-01 10:20:00,Ada,30.00
""",
    """ordered,customer,price
2024-03-01 11:50:00,Carl,2.50
2024-03-01 12:30:00,Grace,8.00
""",
)

TABLES = """
CREATE SOURCE TABLE orders (ordered TIMESTAMP, customer VARCHAR, price DECIMAL(9, 2), WATERMARK FOR ordered AS ordered)
USING csv OPTIONS(path: '{folder}/orders/', settle: 0);

CREATE SINK TABLE income USING csv OPTIONS(path: '{folder}/income.csv')
"""

INCOME = """
INSERT INTO income
SELECT strftime(hour, '%H:%M') AS hour, count(*) AS orders, sum(price) AS income
FROM orders
WINDOW BY ordered EVERY INTERVAL '1 hour' AS hour
GROUP BY hour
HAVING income > 10
EMIT ON WINDOW CLOSE
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, DataflowSession() as session:
        folder = Path(name)
        (folder / "orders").mkdir()
        session.sql(TABLES.format(folder=folder))
        print("tables:", ", ".join(session.tables()))
        print(INCOME)
        for number, text in enumerate(ORDERS, start=1):
            (folder / "orders" / f"{number}.csv").write_text(text)
            query = session.start_stream_sql(
                INCOME, trigger=Trigger.available_now(), checkpoint_path=str(folder / "checkpoint")
            )
            query.await_termination()
            told = query.progress()
            late = f", {told['late_dropped_rows']} too late" if told["late_dropped_rows"] else ""
            print(f"file {number}: {told['rows_in']} orders{late}; time is {told['watermark']}; income.csv is now")
            print((folder / "income.csv").read_text())


if __name__ == "__main__":
    main()
