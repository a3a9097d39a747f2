"""What otbench itself costs: asv benchmarks (``bench_*.py``), the driver that compares two commits,
and the overhead of a run.
"""
