"""Exists because a Dataflow launch names ./setup.py; everything is said in pyproject.toml."""

from setuptools import setup

setup()
