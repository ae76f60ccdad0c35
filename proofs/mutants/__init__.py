"""`make mutants`: bugs that somebody once shipped, put into the protocol one by one, to be caught.

Each changes one function in a copy of the package. The simulation and the tests of the rooms look
at the copy; what none of them notices is a hole in the proof.
"""

from proofs.mutants.table import MUTANTS, Mutant, mutate

__all__ = ["MUTANTS", "Mutant", "mutate"]
