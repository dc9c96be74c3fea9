"""From pictures to crops: scanned, decoded once, cut, and degraded."""
