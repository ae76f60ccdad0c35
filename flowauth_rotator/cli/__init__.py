"""The command line `flowauth-rotator`."""
