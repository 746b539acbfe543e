"""What a recipe trains for, how well a model does it, and on which device."""
