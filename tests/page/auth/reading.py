"""An auth manager for Airflow 3 that knows somebody who sees Variables and starts nothing."""

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class ReadingAuthManager(SimpleAuthManager):
    """Airflow's simple one, but a viewer may see Variables, as an operator may."""

    def is_authorized_variable(self, *, method, user, details=None):
        sees = method == "GET" and user.role == "viewer"
        return sees or super().is_authorized_variable(method=method, user=user, details=details)
