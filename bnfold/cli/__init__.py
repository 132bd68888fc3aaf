"""The command line: parse, call, print. Whatever takes time to import is imported where it is used."""

from bnfold.cli.exits import Exit
from bnfold.cli.program import app, main

__all__ = ["Exit", "app", "main"]
