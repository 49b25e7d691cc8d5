"""Hand the extension to CMake; all the rest of the build is in pyproject.toml."""

from setuptools import setup

setup(cmake_source_dir=".")
