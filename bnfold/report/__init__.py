"""What happened to a model: one schema, and its renderings."""
