"""Visual tokens."""
