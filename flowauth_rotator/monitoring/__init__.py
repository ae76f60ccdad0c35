"""One severity rule for tokens and rotation DAGs, and an output format for each consumer."""
