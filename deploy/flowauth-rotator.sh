#!/bin/sh
# For root, as /usr/local/sbin/flowauth-rotator: the command line as the service's user and with the
# service's settings. Files have to be named from the root (`/...`), or be redirected by the shell.
exec systemd-run --quiet --pipe --wait --collect \
  --property=User=flowauth-rotator --property=Group=flowauth-rotator \
  --property=StateDirectory=flowauth-rotator --property=StateDirectoryMode=0700 \
  --property=UMask=0077 --property=NoNewPrivileges=yes \
  --property=EnvironmentFile=-/etc/flowauth-rotator.env \
  --setenv=FLOWAUTH_ROTATOR_DATA_DIR=/var/lib/flowauth-rotator \
  /opt/flowauth-rotator/bin/flowauth-rotator "$@"
