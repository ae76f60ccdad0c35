"""Pure values and rules: no clock, no I/O, no Airflow, no Flask, no requests."""
