"""Pictures to crops: scanned, decoded once, cut, and degraded."""
