"""The command line: parse, call, print. Whatever takes time to import is imported where it is used."""

from bnfold.cli.exits import Exit
from bnfold.cli.run import main

__all__ = ["Exit", "main"]
