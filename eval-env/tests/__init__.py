"""Tests of the worker, on real simulators."""
