"""What several amortized solvers share: potentials along lines, and plans out of predicted
potentials.
"""
