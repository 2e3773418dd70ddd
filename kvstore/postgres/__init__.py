"""Items in a PostgreSQL database, shared by many machines."""

from kvstore.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
