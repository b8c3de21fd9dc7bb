"""Everything that touches Gradio. A system never does: its panel is built from its signature."""
