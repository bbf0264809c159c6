"""Reading of label cells, and checks for oddities in them."""
