"""The compiled loops of the Ising solvers. 32 copies of a problem lie side by side, so that a step is a vector's."""
