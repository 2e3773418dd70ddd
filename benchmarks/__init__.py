"""kvstore beside its neighbours: `python -m benchmarks.run`. README.md says how to read it."""
