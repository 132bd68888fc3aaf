"""Many models at once, each as `bnfold.optimize` does one; what goes wrong with one stops no other.

places   which models are meant, and where the result of each goes
task     one model: its work, in whatever process or thread
ledger   what a folder of results remembers, to resume
outcome  what came of it, as a value
pool     processes that do the work
run      all of it: `bnfold.optimize_many`
"""
