"""How close an enlarged picture comes to its original."""
