"""Properties: random tables, plans and histories, and what must hold for all of them.

`tables` draws rows and cuts them into epochs, `plans` draws plans of every operator, the tests say what holds.
Runs are derandomised, so that a red suite stays red; `VELARIA_EXAMPLES=5000` draws more, and new ones each time.
"""
