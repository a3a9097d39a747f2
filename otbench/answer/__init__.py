"""One's own transport problem, answered: one solver fitted on all points, and its answer in files.

`solving` fits and measures, `fitted_map` saves maps and applies them to new points, `files` writes
an answer into a folder.
"""
