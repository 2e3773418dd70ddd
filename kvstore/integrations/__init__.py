"""kvstore inside other frameworks: each module translates shapes and units, and nothing else."""
