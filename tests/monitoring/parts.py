"""The monitoring systems that the tests start: real ones, unpacked by `make .monitors/ready`."""

import pytest

from demo.parts import ROOT

UNPACKED = ROOT / ".monitors" / "root"
PROMETHEUS = UNPACKED / "usr/bin/prometheus"
PROMTOOL = UNPACKED / "usr/bin/promtool"
ALERTMANAGER = UNPACKED / "usr/bin/prometheus-alertmanager"
AMTOOL = UNPACKED / "usr/bin/amtool"
NODE_EXPORTER = UNPACKED / "usr/bin/prometheus-node-exporter"
NAGIOS = UNPACKED / "usr/sbin/nagios4"
ICINGA = next(UNPACKED.glob("usr/lib/*/icinga2/sbin/icinga2"), None)
if ICINGA is None:
    pytest.exit("Prometheus, Nagios and Icinga are needed: make .monitors/ready", returncode=1)
ICINGA_LIBRARIES = ICINGA.parents[2]  # for LD_LIBRARY_PATH
ICINGA_INCLUDES = UNPACKED / "usr/share/icinga2/include"
