"""From what a solver returned to scores and a verdict."""
