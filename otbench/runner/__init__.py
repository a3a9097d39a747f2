"""Runs: planned, executed in processes of their own, timed and recorded."""
