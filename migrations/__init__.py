"""The numbered SQL files that make and upgrade a store, one folder for each database.

Installed as `kvstore.migrations`. A file that has been released never changes again: what comes
next is another file with the next number.
"""
