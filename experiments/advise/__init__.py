"""What a format will do to an optimizer, said before any training: theorems' predictions, each with its simulation."""
