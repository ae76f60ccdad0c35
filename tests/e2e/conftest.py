def pytest_ignore_collect(collection_path, config):
    """An upgrade begins with another Airflow."""
    if collection_path.name == "test_upgrade.py" and not config.getoption("--airflow"):
        return True
    return None
