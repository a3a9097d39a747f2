"""What several solvers share: discrete and entropic couplings, amortized and neural training."""
