"""Stands before the installed package where the tests run on the stock `sqlite3`."""

raise ImportError("pysqlite3 is blocked: KVSTORE_TEST_DRIVER=sqlite3")
