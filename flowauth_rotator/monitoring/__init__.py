"""Tells those who watch: one state of each token, in the words of each monitoring system."""
