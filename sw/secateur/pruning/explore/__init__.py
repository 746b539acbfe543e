"""Many recipes, on many processes: studies, and searches for the front of accuracy and cost."""
