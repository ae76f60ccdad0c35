def pytest_ignore_collect(collection_path, config):
    """An upgrade begins with another Airflow; Celery's Redis is wanted when the file is named."""
    needs_airflow = collection_path.name == "test_upgrade.py" and not config.getoption("--airflow")
    return needs_airflow or collection_path.name == "test_celery.py" or None
