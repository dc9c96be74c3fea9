"""How close an enlarged picture is to its original."""
