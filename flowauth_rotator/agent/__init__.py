"""The one sequence of effects: read, decode, decide, renew, verify, swap, report."""
