"""Placeholder until the engine lands: the standard classes."""
from concurrent.futures import *  # noqa: F403
