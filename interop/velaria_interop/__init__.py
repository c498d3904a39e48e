"""Borders of Velaria: Arrow, pandas, Polars and other engines, in and out; each optional and imported on use."""
