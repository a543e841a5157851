"""The packages of the distribution; the rest is in pyproject.toml. ``configs/`` is installed as ``align/configs``."""

from setuptools import find_namespace_packages, setup


def find(*names: str) -> list[str]:
    """Return these packages with all their folders, those of assets too."""
    return find_namespace_packages(include=[f"{name}*" for name in names], exclude=["*.__pycache__"])


setup(
    packages=[*find("align", "methods", "reward"), *(f"align.{folder}" for folder in find("configs"))],
    package_dir={"align.configs": "configs"},
)
