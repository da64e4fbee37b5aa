"""The only training loop, its checkpoints, and the two objectives that it minimises."""
