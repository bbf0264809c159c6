"""What the cells of labels say, and what is odd about them."""
