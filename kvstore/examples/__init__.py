"""Short programs to run and to read: `python -m kvstore.examples.demo`."""
