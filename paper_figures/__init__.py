"""One figure or table a file, and one style for all of them."""
