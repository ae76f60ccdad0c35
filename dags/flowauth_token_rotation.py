"""Keeps FlowAPI tokens in Airflow's Variables alive.

Copy this file into the dags folder of an Airflow that has `flowauth-rotator` installed and a
connection `flowauth_default` to the issuer. The tokens are those that the Variable
`flowauth_rotator_tokens` lists, or else the one in FLOWAPI_TOKEN; for another schedule see the
arguments of `rotation_dag`.
"""

from flowauth_rotator.provider import rotation_dag

dag = rotation_dag()
