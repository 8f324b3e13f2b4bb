"""How fast a model is on this machine, how much memory it takes, and what a type rounds away."""
