"""pytest's door to the other rooms."""
