"""Keeps the FlowAPI token in the Airflow Variable FLOWAPI_TOKEN alive.

Copy this file into the dags folder of an Airflow that has `flowauth-rotator` installed and a
connection `flowauth_default` to the issuer. For more tokens, or another schedule, see the
arguments of `rotation_dag`.
"""

from flowauth_rotator.provider import rotation_dag

dag = rotation_dag()
