"""The demo on one machine: `make demo` rotates a token once, `make up` keeps everything running."""
