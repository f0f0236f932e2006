"""The engine's post side: operands from the activation memory, pools, post lanes, and the words they write."""
