"""Actors: a mailbox each, supervision, and credit between them."""
