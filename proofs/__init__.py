"""Proofs of the rotation: what make simulate, make mutants and make prove run."""
