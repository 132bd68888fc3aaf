"""Reports as one HTML file each: no other file, no network, nothing that runs but the sorting of tables."""

from bnfold.report.html.pages import render, render_benchmark, render_pair, render_several

__all__ = ["render", "render_benchmark", "render_pair", "render_several"]
