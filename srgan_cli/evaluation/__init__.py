"""How near an enlarged picture comes to its original."""
