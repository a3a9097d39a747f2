"""From what a solver returned to scores and a verdict.

`maps` and `plans` score the two kinds of answers; `outputs`, `samples`, `potentials` and `pictures`
provide the arrays that metrics take; `verdict` judges the metrics.
"""
