"""The page "FlowAPI tokens" and its API in Airflow's web server; tasks and DAGs never import it."""
