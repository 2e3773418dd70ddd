"""Benchmarks: kvstore beside its neighbours. `python -m benchmarks.run`, then `python -m benchmarks.report`."""
