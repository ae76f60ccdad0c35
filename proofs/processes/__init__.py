"""Agent, server and store as real processes, each killed wherever a rotation can be interrupted.

`python -m proofs.processes` kills them at every point and prints what the next runs made of it.
"""
