"""The packages of the distribution; the rest is in pyproject.toml. ``configs/`` is installed as ``align/configs``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["align*", "methods*", "reward*"]), "align.configs"],
    package_dir={"align.configs": "configs"},
)
