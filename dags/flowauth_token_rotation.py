"""Renew the FlowAPI tokens in Airflow Variables before they expire.

Copy this file into the dags folder of an Airflow that has `flowauth-rotator` installed and a
connection `flowauth_default` to the issuer. The Variable `flowauth_rotator_tokens` lists the
tokens; without it, the DAG renews the token in FLOWAPI_TOKEN. For another schedule, see the
arguments of `rotation_dag`.
"""

from flowauth_rotator.provider import rotation_dag

dag = rotation_dag()
