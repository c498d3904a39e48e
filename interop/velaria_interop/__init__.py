"""Borders of Velaria: Arrow, pandas, Polars and other engines, in and out; each optional, loaded on use."""

__version__ = "0.1.0"
