"""The gate: what a pipeline must know about its models, decided without changing one of them."""
