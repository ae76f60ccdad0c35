"""Registers flowauth-rotator with the Airflow whose plugins folder holds this file."""

from flowauth_rotator.provider import FlowAuthRotatorPlugin as FlowAuthRotatorPlugin
