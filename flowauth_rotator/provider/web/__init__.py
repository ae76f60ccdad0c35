"""The page "FlowAPI tokens" and its API, inside Airflow's own web server.

Nothing here is imported by a task or by whoever parses a DAG.
"""
