"""From rows of pixels to larger rows of pixels: tiles, the engine, folders."""
