"""The whole job on one machine: `make demo` runs it once, `make up` leaves it running."""
