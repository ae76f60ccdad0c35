"""An XCom backend that has lost all values."""

from airflow.models.xcom import BaseXCom


class ForgetfulXCom(BaseXCom):
    """It fails to read each of them."""

    @staticmethod
    def deserialize_value(result):
        raise KeyError(result)
