"""How fast this machine trains and predicts."""
